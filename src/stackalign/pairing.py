"""One image registered to another, wherever both lie: pixel sizes and places first. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from stackalign.core.geometry import centre
from stackalign.core.transform import Transform, TransformModel
from stackalign.core.warping.common_grid import CommonGrid, PairImage
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.frames.preprocess import FilteredRegistrar
    from stackalign.core.pair import PairRegistration
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

SURE = 0.8  # probability below which a result is called uncertain


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """How an image has to be moved to lie on another one.

    Attributes
    ----------
    correction : ndarray (d+1, d+1)
        World -> world: what is to be done to the moving image as it lies now.
    matrix : ndarray (d+1, d+1)
        Pixels of the moving image -> pixels of the reference.
    model : TransformModel
        The family that was looked for, rigid in world units.
    probability : float
        In [0, 1], that it is right, as the method judges it: see `PairRegistration`.
    correlation : float
        Pearson correlation of both on what they share.
    refused : bool
        Whether there is too little evidence to say that it is right.
    reason : str
        Why it is refused, in words.
    advice : tuple of str
        What to try when it is refused, the likeliest help first.
    moving, reference : PairImage
        What was registered.
    """

    correction: Array
    matrix: Array
    model: TransformModel
    probability: float
    correlation: float
    refused: bool
    reason: str
    moving: PairImage
    reference: PairImage
    advice: tuple[str, ...] = ()

    @property
    def affine(self) -> Array:
        """The correction; of a projective one the affine part that fits best over the moving image."""
        if self.model is not TransformModel.PROJECTIVE:
            return self.correction
        points = _grid_of(self.moving)
        projective = Transform(self.correction, TransformModel.PROJECTIVE)
        return Transform.from_points(points, projective(points), TransformModel.AFFINE).matrix

    @property
    def sentence(self) -> str:
        """What came out, for a user."""
        if self.refused:
            return f"Refused: {self.reason or 'nothing says that the images show the same'}."
        how = "Right" if self.probability >= SURE else "Uncertain, look at it"
        return (
            f"{how}: probability {probability_text(self.probability)}, judged by the structure that both share;"
            f" correlation {self.correlation:.2f}."
        )

    def motion(self, unit: str, length: float = 1.0) -> str:
        """Return how far the middle of the moving image moved, turned and grew, in words.

        Parameters
        ----------
        unit : str
            As it is written.
        length : float
            Units of the world in one of these.
        """
        affine = self.affine
        where = np.append(centre(self.moving.shape), 1.0)
        middle = (self.moving.place @ where)[:-1]
        shift = (affine[:-1, :-1] @ middle + affine[:-1, -1] - middle) / length
        axes = "zyx"[-len(shift) :]
        size = float(np.min(self.reference.spacing)) / length
        digits = int(np.clip(np.ceil(-np.log10(size)) + 1, 0, 6)) if size > 0 else 2
        parts = ["shift " + "  ".join(f"{a} {v:+.{digits}f}" for a, v in zip(axes, shift, strict=True)) + f" {unit}"]
        if self.model is TransformModel.TRANSLATION:
            return parts[0]
        u, stretch, vt = np.linalg.svd(affine[:-1, :-1])
        turn = u @ vt
        if len(shift) == 2:
            angle = float(np.rad2deg(np.arctan2(turn[1, 0], turn[0, 0])))
        else:
            angle = float(np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
        parts.append(f"turn {angle:+.2f}°" if len(shift) == 2 else f"turn {angle:.2f}°")
        if self.model.rank >= TransformModel.SIMILARITY.rank:
            parts.append(f"size × {float(np.prod(stretch)) ** (1 / len(stretch)):.4f}")
        return ", ".join(parts)


def pair_work(
    moving: PairImage,
    reference: PairImage,
    method: FilteredRegistrar,
    *,
    mask: NDArray[np.bool_] | None = None,
    refine: bool = False,
) -> Work[Pairing]:
    """Register one image to another, in world coordinates, as work.

    The finer image is binned to about the pixel size of the coarser one; then the moving image is brought to the
    reference's pixels, as it lies, and registered there. Images with the same pixels are not resampled at all.

    Parameters
    ----------
    moving, reference : PairImage
        With the same number of axes.
    method : CrossCorrelation or LucasKanade
        With its parameters; rotations are rigid in world units, shifts are limited in pixels of the common grid.
    mask : ndarray of bool, shape of the reference, optional
        True where a pixel of the reference counts.
    refine : bool
        Start from where the images lie now instead of looking everywhere.

    Returns
    -------
    Work of Pairing
        A result that cannot be trusted is ``refused``, never an exception.

    Raises
    ------
    ValueError
        If the numbers of axes differ, the mask does not fit or covers everything, or an image has no contrast.
    """
    from stackalign.core.pair import register_pair

    d = len(reference.shape)
    if len(moving.shape) != d or d not in (2, 3):
        raise ValueError(
            f"“{moving.name}” has {len(moving.shape)} axes and “{reference.name}” {d}: both must be images, or both"
            " volumes"
        )
    if mask is not None and mask.shape != reference.shape:
        raise ValueError(f"the mask is {mask.shape}, “{reference.name}” is {reference.shape}: they must be alike")
    if mask is not None and not mask.any():
        raise ValueError(f"the mask leaves nothing of “{reference.name}”: draw it on the image")
    yield Progress(0, 3, "Reading both images")
    first, second = _numbers(moving), _numbers(reference)
    yield Progress(1, 3, "Bringing both to one pixel size")
    grid = CommonGrid.of(moving, reference, refine)
    frame, image, counted = grid.moving_frame(first), grid.reference_frame(second), grid.mask(mask)
    yield Progress(2, 3, "Registering")
    found: PairRegistration = register_pair(
        frame, image, method, mask=counted, initial=Transform(grid.initial, TransformModel.AFFINE) if refine else None,
        pixel_size=tuple(np.linalg.norm(grid.place[:-1, :-1], axis=0)),
    )  # fmt: skip
    correction = grid.correction(found.transform.matrix)
    matrix = np.linalg.inv(reference.place) @ correction @ moving.place
    refused = bool(found.refused)
    yield Progress(3, 3, "Registering")
    return Pairing(
        correction / correction[-1, -1], matrix / matrix[-1, -1], found.transform.model, float(found.probability),
        float(found.correlation), refused, str(found.reason or ""), moving, reference,
        advice_for(method, refine, mask is not None) if refused else (),
    )  # fmt: skip


def pair_methods() -> dict[str, type[Any]]:
    """Return the parameter records of the methods that register pairs, by name."""
    from stackalign.config import METHODS

    return {
        name: record for name, record in METHODS.items() if hasattr(record, "aligner") or hasattr(record, "fit_pair")
    }


def models_of(record: type[Any]) -> tuple[TransformModel, ...]:
    """Return the models of motion that a method can look for."""
    info = record.model_fields.get("model")
    if info is None:
        return (TransformModel.TRANSLATION,)
    named = get_args(info.annotation)
    return tuple(model for model in TransformModel if not named or model.value in named)


def pair_record(method: str, model: TransformModel) -> Any:
    """Return a method as two layers need it: nothing is known of how one of them lies."""
    record = pair_methods()[method]
    wide = {"model": model, "max_rotation": 180.0, "max_scale": 1.25}
    return record(**{name: value for name, value in wide.items() if name in record.model_fields})


def advice_for(method: Any, refine: bool, masked: bool) -> tuple[str, ...]:
    """Return what to try after a refusal, the likeliest help first, at most four."""
    model = TransformModel(getattr(method, "model", TransformModel.TRANSLATION))
    tips = []
    if refine:
        tips.append("start by looking everywhere: the layer may lie too far off")
    if model is TransformModel.TRANSLATION:
        tips.append("if one image is turned, choose the model “shift and rotation”")
    elif getattr(method, "max_rotation", 180.0) < 180:
        tips.append("if it is turned by more, raise “Largest rotation” under Options")
    if model.rank < TransformModel.SIMILARITY.rank:
        tips.append("if magnifications differ, set the pixel sizes, or choose a model with scale")
    elif getattr(method, "max_scale", 1.0) < 1.2:
        tips.append("if magnifications differ, raise “Largest scale” under Options, Advanced")
    if not masked:
        tips.append("draw a shape around what both images show and choose it under “Inside”")
    if not refine:
        tips.append("place the layer roughly by hand (napari's transform tool) and start from where it lies")
    if not getattr(method, "low_sigma", 0):
        tips.append("if they are noisy, raise “Smooth” under Options, Advanced")
    return tuple(tips[:4])


def probability_text(probability: float) -> str:
    """Return "97 %" or "over 99 %"."""
    if not np.isfinite(probability):
        return "not known"
    return "over 99 %" if probability > 0.99 else f"{np.floor(100 * probability):.0f} %"


def _numbers(image: PairImage) -> NDArray[Any]:
    """Read an image; ValueError if it has no contrast."""
    pixels = np.asarray(image.pixels)
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "uif":
        raise ValueError(f"“{image.name}” holds {pixels.dtype} values: registration needs numbers")
    known = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not known.size or known.min() == known.max():
        raise ValueError(f"“{image.name}” is the same everywhere: there is nothing to register it by")
    return pixels


def _grid_of(image: PairImage) -> Array:
    """Return five points along each axis of an image, world coordinates."""
    axes = [np.linspace(0, n - 1, 5) for n in image.shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return np.asarray(points @ image.place[:-1, :-1].T + image.place[:-1, -1])


def luminance(colours: Any) -> NDArray[np.float32]:
    """Return the brightness of (..., 3 or 4) colours (Rec. 709); anything that numpy can read."""
    values = np.asarray(colours)[..., :3]
    return np.asarray(values @ np.array([0.2126, 0.7152, 0.0722], np.float32), np.float32)
