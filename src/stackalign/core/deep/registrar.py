"""Register images of different modalities by learnt features, or by a network that regresses corners."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.deep.requirement import require_torch
from stackalign.core.geometry import centre
from stackalign.core.multimodal.places import within
from stackalign.core.multimodal.registrar import Multimodal, MultimodalAligner
from stackalign.core.multimodal.views import ImageViews
from stackalign.core.references.reference import PairResult
from stackalign.core.transform import TransformModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.deep.networks.base import PairNetwork
    from stackalign.core.multimodal.judge import Verdict
    from stackalign.core.multimodal.matching import Match
    from stackalign.core.multimodal.views import Views

    Array = NDArray[np.float64]

PRETRAINED = Path(__file__).parent / "pretrained"
_RIVALLED = 0.9  # share of the best score: a place with such a rival is no start
_ROOM_TURN, _ROOM_SCALE = 5.0, 1.1  # deg, factor: refined places may come back from beyond the ranges by as much


class DeepHomography(Multimodal):
    """Learnt features also say where, edges and self-similarity refine and judge it: between different modalities."""

    method: Literal["deep"] = "deep"  # type: ignore[assignment]
    trained: str | None = Field(
        None,
        title="Trained weights",
        description="File that `stackalign train` wrote; none: the weights that come with stackalign",
    )
    refine: bool = Field(
        True,
        title="Refine and judge",
        description="Search, refine and judge as `multimodal` does, and ask the network where that is refused; off: the"
        " network's answer alone, which does not say how sure it is",
        json_schema_extra={"advanced": True},
    )
    device: str = Field(
        "cpu",
        title="Device",
        description="'cpu', 'cuda' or 'auto'",
        min_length=1,
        json_schema_extra={"advanced": True},
    )

    @property
    def missing(self) -> str:
        """What has to be installed first, one sentence; empty if nothing."""
        try:
            require_torch("the method 'deep'")
        except ImportError as error:
            sentence = str(error)
            return sentence[0].upper() + sentence[1:]
        return ""

    def network(self) -> PairNetwork:
        """Return the trained network.

        Raises
        ------
        ImportError
            If PyTorch is missing.
        WeightsError
            If the file holds no weights of this package, or none come with it.
        """
        require_torch("the method 'deep'")
        file = Path(self.trained).expanduser() if self.trained else PRETRAINED / "description.safetensors"
        if not self.trained and not file.exists():
            from stackalign.core.deep.weights import WeightsError

            raise WeightsError(
                "this stackalign comes without trained weights: train with `stackalign train` and set trained=FILE"
            )
        return _loaded(str(file), file.stat().st_mtime_ns if file.exists() else 0)

    def aligner(self) -> DeepAligner:
        """Return what aligns one frame to one image.

        Raises
        ------
        ImportError
            If PyTorch is missing.
        WeightsError
            As `network`.
        """
        return DeepAligner(self, self.network())

    def found(
        self, network: PairNetwork, reference: NDArray[Any], moving: NDArray[Any], start: Array | None = None
    ) -> tuple[Array | None, list[Array]]:
        """Return where a network alone puts one plane, moving -> reference, and all places that it considered.

        Parameters
        ----------
        network : PairNetwork
        reference, moving : ndarray (y, x)
            NaN where not known.
        start : ndarray (3, 3), optional
            A guess that is tried beside others, by networks whose features are matched.

        Returns
        -------
        matrix : ndarray (3, 3) or None
            None: the features are of two minds, or the corners are no view of a plane from its front.
        places : list of ndarray (3, 3)
            Views of a plane from its front, likely ones first.
        """
        from stackalign.core.deep.inference import feature_maps, regressed_corners
        from stackalign.core.deep.matching import match_features
        from stackalign.core.deep.pairs import corners_of
        from stackalign.core.multimodal.corners import plausible
        from stackalign.core.transform_fit import fit_matrix

        if network.gives == "description":
            answer = DeepAligner(self, network).matched(
                ImageViews(reference, moving), [] if start is None else [start],
                model=self.model, max_shift=self.max_shift, least_overlap=self.min_overlap, seed=self.seed,
            )  # fmt: skip
            return (None, []) if answer is None else (answer.matrix, [answer.matrix])
        if network.gives == "features":
            maps = [feature_maps(network, plane, device=self.device) for plane in (reference, moving)]
            best = match_features(maps[0], maps[1], seed=self.seed, start=start)
            matrix, places, rivalled = best.matrix, [best.matrix, *best.places], best.rival > _RIVALLED
        else:
            corners = regressed_corners(network, reference, moving, device=self.device)
            try:
                matrix, rivalled = fit_matrix(corners_of(moving.shape), corners, "projective"), False
            except ValueError:
                return None, []
            places = [matrix]
        seen = [place for place in places if plausible(place, moving.shape, 6.0)]
        return None if rivalled or not plausible(matrix, moving.shape, 6.0) else matrix, seen


@dataclass(frozen=True, slots=True, eq=False)
class DeepAligner(MultimodalAligner):
    """Aligns one frame to one image by what a network says; a `PairAligner`."""

    parameters: DeepHomography
    network: PairNetwork

    def align(self, frame: NDArray[Any], template: NDArray[np.float32], start: Array | None) -> PairResult:
        """Return how ``frame`` lies on the reference; see `PairAligner.align`.

        The network is asked where the answer of multimodal's own search would be refused.
        """
        asked, image = self.parameters, np.asarray(frame, np.float32)
        if _blank(image) or _blank(template):
            return MultimodalAligner.align(self, frame, template, None)  # it says which, and why
        if not asked.refine:
            return self._alone(asked.found(self.network, template, image, start)[0], image.shape)
        return MultimodalAligner.align(self, frame, template, start)

    def searched(self, views: Views, starts: Sequence[Array], options: dict[str, Any]) -> tuple[Match, Verdict] | None:
        """Search as `multimodal` does, and where that is refused with what a network describes images by, if it does.

        The place that was refused is begun from, too. The likelier answer is returned.
        """
        from stackalign.core.multimodal.judge import judge
        from stackalign.core.multimodal.matching import likeliest

        first = MultimodalAligner.searched(self, views, starts, options)
        if self.network.gives != "description" or (first is not None and not first[1].refused):
            return first
        begun = [*starts, *([] if first is None else [first[0].matrix])]
        found = self.matched(views, begun, **options)
        if found is None:
            return first
        verdict = judge(found.evidence, threshold=self.parameters.least_probability)
        answers = [answer for answer in (first, (found, verdict)) if answer is not None]
        return likeliest(answers, views.shapes(0)[1], self.parameters.least_probability)

    def matched(self, views: Views, starts: Sequence[Array], **options: Any) -> Match | None:
        """Return the likeliest place by what a network describes images by; None if nothing can be compared."""
        import torch

        from stackalign.core.deep.inference import described
        from stackalign.core.multimodal.matching import match

        asked, before = self.parameters, torch.get_num_threads()
        seen = views.described(partial(described, self.network, device=asked.device), 1.0)
        torch.set_num_threads(1)  # places are refined side by side already
        try:
            return match(
                seen, angles=asked.angles(), scales=asked.scales(), starts=starts, families=(), second=views, **options
            )
        finally:
            torch.set_num_threads(before)

    def further_places(self, views: Views) -> list[Array]:
        """Return all places, moving -> fixed, that the network considers within the ranges, likely ones first."""
        if self.network.gives == "description":
            return []  # it is asked after all others
        fixed, moving = views.images()
        _, places = self.parameters.found(self.network, fixed, moving)
        return [place for place in places if self._allowed(place, moving.shape, fixed.shape)]

    def _alone(self, matrix: Array | None, shape: tuple[int, ...]) -> PairResult:
        """Return what the network says, within the family that was asked for."""
        if matrix is None:
            return PairResult.failed(2, "the network's answer is no view of the image, or another one is as likely")
        nearest = within(matrix, (shape[0], shape[1]), self.model)
        return PairResult(nearest, np.nan, np.nan, np.nan, np.full(2, np.nan))

    def _allowed(self, matrix: Array, shape: tuple[int, ...], still: tuple[int, ...]) -> bool:
        """Whether a place lies within the ranges that were asked for, or so near that it may come back."""
        asked = self.parameters
        nearest = within(matrix, (shape[0], shape[1]), TransformModel.SIMILARITY)
        scale = float(np.hypot(nearest[0, 0], nearest[0, 1]))
        turn = float(np.rad2deg(abs(np.arctan2(nearest[0, 1], nearest[0, 0]))))
        middle = nearest @ np.append(centre(shape), 1.0)
        shift = float(np.hypot(*(middle[:2] - centre(still))))
        return bool(
            turn <= asked.max_rotation + _ROOM_TURN
            and abs(np.log(scale)) <= np.log(asked.max_scale * _ROOM_SCALE)
            and (asked.max_shift is None or shift <= asked.max_shift)
        )


def _blank(image: NDArray[Any]) -> bool:
    known = image[np.isfinite(image)]
    return not known.size or bool(known.min() == known.max())


@lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> PairNetwork:
    from stackalign.core.deep.weights import load_network

    return load_network(path)[0]
