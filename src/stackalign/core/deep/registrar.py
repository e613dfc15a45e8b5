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
LEAST_PROBABILITY = 0.5


class DeepHomography(Parameters):
    """Learnt features, matched over the whole range, then refined: a homography between different modalities."""

    method: Literal["deep"] = "deep"
    weights: str | None = Field(
        None,
        title="Weights",
        description="File that `stackalign train` wrote; none: the weights that come with stackalign",
    )
    device: str = Field("cpu", title="Device", description="'cpu', 'cuda' or 'auto'", min_length=1)
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
            Refused where fewer than every other fine match agrees with the best homography, or another one is as good.
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
        from stackalign.core.deep.inference import feature_maps
        from stackalign.core.deep.matching import match_features
        from stackalign.core.multimodal.corners import plausible

        maps = [feature_maps(network, plane, device=self.device) for plane in planes]
        found = match_features(
            maps[0], maps[1], seed=self.seed, start=None if initial is None else initial.matrix.copy()
        )
        probability = chance_right(found.agreement, found.rival, found.spread)
        if not plausible(found.matrix, planes[1].shape, 6.0):
            return _refused("the best homography found is no view of a plane from its front")
        if probability < LEAST_PROBABILITY:
            reason = (
                f"another place fits {found.rival:.0%} as well"
                if found.rival > 0.9
                else f"only {found.agreement:.0%} of the places agree on one homography"
            )
            return _refused(reason, probability)
        error = np.full(2, found.spread / np.sqrt(2))
        return PairRegistration(
            Transform(found.matrix, TransformModel.PROJECTIVE), probability, False, "", float("nan"), error
        )

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


def chance_right(agreement: float, rival: float, spread: float) -> float:
    """Return a probability that the mean corner error is under 3 px.

    A logistic model of the share of fine matches that agree, of the best other place, and of the standard error.
    """
    if not np.isfinite(spread):
        return 0.0
    score = _LOGISTIC[0] + _LOGISTIC[1] * agreement + _LOGISTIC[2] * rival + _LOGISTIC[3] * np.log(max(spread, 1e-2))
    return float(1 / (1 + np.exp(-score)))


_LOGISTIC = (-11.5, 20.0, -1.0, -0.3)  # set by hand on synthetic pairs; to be fitted once weights are trained


@lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> PairNetwork:
    from stackalign.core.deep.weights import load_network

    return load_network(path)[0]
