"""Register images of different modalities without training: `Multimodal`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.frames.frame_check import check_frame
from stackalign.core.frames.holes import masked
from stackalign.core.frames.preprocess import PairRegistrar
from stackalign.core.ranges import MaxRotation, MaxScale, MaxShift, MinOverlap
from stackalign.core.references.reference import PairResult
from stackalign.core.references.rounds import align_stack, first_usable
from stackalign.core.stack import ImageStack
from stackalign.core.transform import Transform, TransformModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel
    from stackalign.core.multimodal.judge import Evidence, Verdict
    from stackalign.core.multimodal.matching import Match
    from stackalign.core.multimodal.views import Views
    from stackalign.core.pair import PairRegistration
    from stackalign.core.registration import ReferenceLike, Registration
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

_TURN = 15.0  # deg between the rotations that are searched: blocks give way by as much as lies between
_SMALL = 0.25  # of the moving image's pixels: less of a reference is looked for in that image instead
_THOROUGH: dict[str, Any] = {"blocks": 4, "block_size": 0.4, "candidates": 48, "keep": 5, "pursued": 12}
_GROWTH = 1.22  # between the magnifications that are searched


class Multimodal(PairRegistrar):
    """Images of different modalities: self-similarity and edges whatever their contrast, found globally, judged."""

    method: Literal["multimodal"] = "multimodal"
    model: TransformModel = Field(
        TransformModel.PROJECTIVE,
        title="Model",
        description="Family of the motion: translation, euclidean, similarity, affine, projective",
    )
    max_rotation: MaxRotation = 30.0
    max_scale: MaxScale = 1.45
    max_shift: MaxShift = None
    min_overlap: MinOverlap = 0.4
    least_probability: float = Field(
        0.7,
        title="Least probability",
        description="A result is refused if the probability that its corners are right within 3 pixels is smaller",
        ge=0,
        le=1,
    )
    seed: int = Field(
        0,
        title="Seed",
        description="Of the restarts from disturbed places",
        ge=0,
        json_schema_extra={"advanced": True},
    )

    def fit(
        self,
        stack: ImageStack,
        *,
        reference: ReferenceLike | None = None,
        anchor: int | str | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Work[Registration]:
        """Estimate one transform per frame; see `Registrar.fit`.

        The reference is usually an image of another kind; None: the first frame that holds something.

        Raises
        ------
        ValueError
            If the reference, the anchor or the mask do not fit the stack, or the frames are volumes.
        """
        source = ImageStack.of(stack)
        if source.ndim != 2:
            raise ValueError("multimodal registration is for images, not for volumes: choose lucas-kanade")
        chosen = reference
        if chosen is None:
            chosen = first_usable(source) or 0
        return (
            yield from align_stack(
                source, self.aligner(), chosen, anchor=anchor, mask=mask, rolling=self.rolling, lag=self.lag
            )
        )

    def aligner(self) -> MultimodalAligner:
        """Return what aligns one frame to one image."""
        return MultimodalAligner(self)

    def fit_pair(
        self,
        moving: NDArray[Any],
        reference: NDArray[Any],
        *,
        mask: NDArray[np.bool_] | None = None,
        initial: Transform | None = None,
    ) -> PairRegistration:
        """Align one image, channels last, to another; see `register_pair`.

        The ``probability`` is that of a mean corner error under 3 pixels; ``correlation`` is that of the features.
        """
        from stackalign.core.multimodal.borders import without_borders
        from stackalign.core.pair import PairRegistration, as_plane

        still, moved = as_plane(reference, "the reference", 2), as_plane(moving, "the moving image", 2)
        aligner = self.aligner()
        template = self.filtered(masked(without_borders(np.asarray(still, np.float32)), mask))
        found = aligner.align(aligner.filtered(moved), template, None if initial is None else initial.matrix)
        if found.reason:
            return PairRegistration(
                Transform.identity(2), found.confidence, True, found.reason, found.correlation, np.full(2, np.nan)
            )
        return PairRegistration(
            Transform(found.matrix, self.model), found.confidence, False, "", found.correlation, found.error
        )

    def angles(self) -> list[float]:
        """Return the rotations to search, radians."""
        if self.model is TransformModel.TRANSLATION:
            return [0.0]
        if self.max_rotation > 180 - _TURN:
            return [float(v) for v in np.deg2rad(np.arange(-180, 180, _TURN))]
        count = int(np.ceil((self.max_rotation - 0.5 * _TURN) / _TURN)) if self.max_rotation > 0.5 * _TURN else 0
        return [float(v) for v in np.deg2rad(_TURN * np.arange(-count, count + 1))]

    def scales(self) -> list[float]:
        """Return the magnifications to search."""
        if self.model.rank < TransformModel.SIMILARITY.rank:
            return [1.0]
        reach = np.log(self.max_scale) / np.log(_GROWTH)
        count = int(np.ceil(2 * reach - 0.5)) if reach > 0.5 else 0
        steps = np.linspace(-reach, reach, count + 1) if count else np.zeros(1)
        return [float(v) for v in _GROWTH**steps]


@dataclass(frozen=True, slots=True, eq=False)
class MultimodalAligner:
    """Aligns one frame to one image of any kind; a `PairAligner`."""

    parameters: Multimodal

    @property
    def model(self) -> TransformModel:
        """The family of the matrices."""
        return self.parameters.model

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the band-passed frame, not a number in constant corners: their sides are edges like others."""
        from stackalign.core.multimodal.borders import without_borders

        return self.parameters.filtered(without_borders(np.asarray(frame, np.float32)))

    def prepare(
        self,
        reference: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        *,
        noise: NoiseModel | None = None,
        frames: float = 1.0,
    ) -> NDArray[np.float32]:
        """Return the reference with holes where it does not count; brightness and noise tell nothing here."""
        image = masked(np.asarray(reference, np.float32), mask)
        problem = check_frame(image[_known(image)])
        if problem:
            raise ValueError(f"the reference cannot be used: {problem}")
        return image

    def align(self, frame: NDArray[Any], template: NDArray[np.float32], start: Array | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`.

        A guess is one more place to begin from: the whole range is searched beside it, for an answer can only be
        believed if no other place fits as well.
        """
        return self.begun_from([] if start is None else [np.asarray(start, float)], frame, template)

    def begun_from(self, starts: Sequence[Array], frame: NDArray[Any], template: NDArray[np.float32]) -> PairResult:
        """Return how ``frame`` lies on the reference; guesses, moving -> reference, are tried beside what is found."""
        from stackalign.core.multimodal.views import ImageViews

        image, box = np.asarray(frame, np.float32), _known(template)
        part = template[box]
        for name, picture in (("the reference", part), ("the moving image", image)):
            problem = check_frame(picture)
            if problem:
                return PairResult.failed(2, f"{name}: {problem}")
        if part.size < _SMALL * image.size:
            return self._turned_around(image, template, box, starts)
        return self._judged(ImageViews(template, image), starts, self.parameters.max_shift)

    def _turned_around(
        self,
        image: NDArray[np.float32],
        template: NDArray[np.float32],
        box: tuple[slice, slice],
        starts: Sequence[Array],
    ) -> PairResult:
        """Look for a small reference, or the part of one that a mask leaves, in the moving image."""
        from stackalign.core.geometry import centre
        from stackalign.core.multimodal.views import ImageViews

        there = np.eye(3)  # the part -> the reference
        there[:2, 2] = box[0].start, box[1].start
        begun = [np.linalg.inv(start) @ there for start in starts]
        result = self._judged(ImageViews(image, template[box]), begun, None)
        if result.reason:
            return result
        matrix = there @ np.linalg.inv(result.matrix)
        matrix /= matrix[2, 2]
        moved = matrix @ np.append(centre(image.shape), 1.0)
        shift, most = float(np.hypot(*(moved[:2] / moved[2] - centre(template.shape)))), self.parameters.max_shift
        if most is not None and shift > most:
            return PairResult.failed(2, f"the likeliest place is {shift:.0f} px away: max_shift is {most:g}")
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        return replace(result, matrix=matrix, error=scale * result.error)

    def _judged(self, views: Views, starts: Sequence[Array], max_shift: float | None) -> PairResult:
        """Return the motion of the second image onto the first one, or why it is refused."""
        chosen = self.parameters
        options: dict[str, Any] = {
            "model": chosen.model, "max_shift": max_shift, "least_overlap": chosen.min_overlap, "seed": chosen.seed,
        }  # fmt: skip
        told = self.searched(views, starts, options)
        if told is None:
            return PairResult.failed(2, "no place was found where enough of both images can be compared")
        found, verdict = told
        if verdict.refused:
            reason = f"{verdict.reason}; probability {100 * verdict.probability:.0f} %"
            return PairResult(np.eye(3), found.evidence.score, np.nan, verdict.probability, np.full(2, np.nan), reason)
        return PairResult(found.matrix, found.evidence.score, np.nan, verdict.probability, _error(found.evidence))

    def searched(self, views: Views, starts: Sequence[Array], options: dict[str, Any]) -> tuple[Match, Verdict] | None:
        """Search the whole range, again by other means where the answer would be refused; return the likeliest one.

        All places, found and given ones, are rivals of each other.

        Brightness comes second: only where self-similarity and edges drown in noise does it tell more. Then more and
        smaller blocks are looked for.
        """
        from stackalign.core.multimodal.brightness import COEFFICIENTS as OF_BRIGHTNESS
        from stackalign.core.multimodal.brightness import match_brightness
        from stackalign.core.multimodal.judge import COEFFICIENTS, judge
        from stackalign.core.multimodal.matching import likeliest, match

        chosen, begun = self.parameters, list(starts)
        answers: list[tuple[Match, Verdict]] = []
        ranges = {"angles": chosen.angles(), "scales": chosen.scales()}
        ways: list[tuple[Callable[..., Match | None], tuple[float, ...], dict[str, Any]]] = [
            (match, COEFFICIENTS, {}), (match_brightness, OF_BRIGHTNESS, {}), (match, COEFFICIENTS, _THOROUGH),
        ]  # fmt: skip
        for k, (way, coefficients, more) in enumerate(ways):
            begun += self.further_places(views) if k == 1 else []
            found = way(views, starts=begun, **ranges, **options, **more)
            if found is None:
                continue
            verdict = judge(found.evidence, threshold=chosen.least_probability, coefficients=coefficients)
            answers.append((found, verdict))
            if not verdict.refused:
                break
        return likeliest(answers, views.shapes(0)[1], chosen.least_probability)

    def further_places(self, views: Views) -> list[Array]:
        """Return places to begin from, moving -> fixed, where the first answer would be refused: none."""
        return []

    def residuals(
        self, frame: NDArray[Any], template: NDArray[np.float32], result: PairResult, *, own: bool = False
    ) -> Array:
        """Return no pairs: the brightness of one modality does not predict that of another."""
        return np.empty((0, 2))


def _known(image: NDArray[Any]) -> tuple[slice, slice]:
    """Return the least box that holds all pixels that are known; all of the image if none is."""
    known = np.isfinite(image)
    if not known.any():
        return slice(0, image.shape[0]), slice(0, image.shape[1])
    spans = [np.flatnonzero(known.any(axis)) for axis in (1, 0)]
    return slice(int(spans[0][0]), int(spans[0][-1]) + 1), slice(int(spans[1][0]), int(spans[1][-1]) + 1)


def _error(evidence: Evidence) -> Array:
    """Return the standard error along each axis that the disagreement of restarts and families implies, pixels."""
    apart = [v for v in (evidence.inverse, evidence.restarts, evidence.subsets) if np.isfinite(v)]
    size = np.hypot(evidence.spread, 0.5 * float(np.median(apart)) if apart else np.nan) / np.sqrt(2)
    return np.full(2, float(size))
