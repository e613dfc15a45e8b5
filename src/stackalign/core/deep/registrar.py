"""Register two images of different modalities by learnt features, or by a network that regresses corners."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stackalign.core.deep.requirement import require_torch
from stackalign.core.frame_check import check_frame
from stackalign.core.pair import PairRegistration, as_plane
from stackalign.core.parameters import Parameters
from stackalign.core.transform import Transform, TransformModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.deep.networks.base import PairNetwork

PRETRAINED = Path(__file__).parent / "pretrained"
_RIVALLED = 0.9  # share of the best score: a place with such a rival is no start


class DeepHomography(Parameters):
    """Learnt features say where, edges and self-similarity refine and judge it: between different modalities."""

    method: Literal["deep"] = "deep"
    weights: str | None = Field(
        None,
        title="Weights",
        description="File that `stackalign train` wrote; none: the weights that come with stackalign",
    )
    device: str = Field("cpu", title="Device", description="'cpu', 'cuda' or 'auto'", min_length=1)
    least_probability: float = Field(
        0.7,
        title="Least probability",
        description="A result is refused if the probability that its corners are right within 3 pixels is smaller",
        ge=0,
        le=1,
    )
    seed: int = Field(0, ge=0, title="Seed", description="Of the guesses that are tried")

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
        file = Path(self.weights).expanduser() if self.weights else PRETRAINED / "features.safetensors"
        if not self.weights and not file.exists():
            from stackalign.core.deep.weights import WeightsError

            raise WeightsError(
                "this stackalign comes without trained weights: train with `stackalign train` and set weights=FILE"
            )
        return _loaded(str(file), file.stat().st_mtime_ns if file.exists() else 0)

    def fit_pair(
        self,
        moving: NDArray[Any],
        reference: NDArray[Any],
        *,
        mask: NDArray[np.bool_] | None = None,
        initial: Transform | None = None,
    ) -> PairRegistration:
        """Find the homography that lays the moving image on the reference.

        Parameters
        ----------
        moving, reference : ndarray (y, x) or (y, x, channel)
            Of any sizes and dtypes.
        mask : ndarray of bool (y, x), optional
            True where a pixel of the reference counts.
        initial : Transform, optional
            A guess that is tried beside others.

        Returns
        -------
        PairRegistration
            The learnt features' place, refined and judged as `Multimodal` does; where it would be refused, its own
            search follows. A network that regresses corners is asked alone.
        """
        planes = [as_plane(reference, "the reference", 2), as_plane(moving, "the moving image", 2)]
        for name, image in zip(("the reference", "the moving image"), planes, strict=True):
            problem = check_frame(image)
            if problem:
                return _refused(f"{name}: {problem}")
        network = self.network()
        if mask is not None:
            planes[0] = np.where(mask, planes[0], np.nan)
        if not hasattr(network, "log_sharpness"):
            return self._regressed(network, *planes)
        start = self.found(network, planes[0], planes[1], None if initial is None else initial.matrix)
        from stackalign.core.multimodal.registrar import Multimodal

        training_free = Multimodal(least_probability=self.least_probability, seed=self.seed)
        return training_free.fit_pair(
            planes[1], planes[0], initial=None if start is None else Transform(start, TransformModel.PROJECTIVE)
        )

    def found(
        self,
        network: PairNetwork,
        reference: NDArray[Any],
        moving: NDArray[Any],
        start: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64] | None:
        """Return where learnt features alone put one plane, moving -> reference; ``start`` if they are of two minds."""
        from stackalign.core.deep.inference import feature_maps
        from stackalign.core.deep.matching import match_features
        from stackalign.core.multimodal.corners import plausible

        maps = [feature_maps(network, plane, device=self.device) for plane in (reference, moving)]
        best = match_features(maps[0], maps[1], seed=self.seed, start=None if start is None else start.copy())
        if best.rival > _RIVALLED or not plausible(best.matrix, moving.shape, 6.0):
            return start
        return best.matrix

    def _regressed(
        self, network: PairNetwork, reference: NDArray[np.float32], moving: NDArray[np.float32]
    ) -> PairRegistration:
        """Ask a network that regresses corners: it never says how sure it is."""
        from stackalign.core.deep.inference import regressed_corners
        from stackalign.core.deep.pairs import corners_of
        from stackalign.core.multimodal.corners import plausible
        from stackalign.core.transform_fit import fit_matrix

        corners = regressed_corners(network, np.nan_to_num(reference), np.nan_to_num(moving))
        try:
            matrix = fit_matrix(corners_of(moving.shape), corners, "projective")
        except ValueError as error:
            return _refused(f"the network's corners are no view of the image ({error})")
        if not plausible(matrix, moving.shape, 6.0):
            return _refused("the network's corners are no view of a plane from its front")
        return PairRegistration(
            Transform(matrix, TransformModel.PROJECTIVE), float("nan"), False, "", float("nan"), np.full(2, np.nan)
        )


def _refused(reason: str, probability: float = 0.0) -> PairRegistration:
    nan = float("nan")
    return PairRegistration(Transform.identity(2), probability, True, reason, nan, np.full(2, np.nan))


@lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> PairNetwork:
    from stackalign.core.deep.weights import load_network

    return load_network(path)[0]
