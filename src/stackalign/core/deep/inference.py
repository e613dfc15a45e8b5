"""Use a trained network: features of an image, and pairs registered by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.deep.matching import CELL, DOT, FeatureMaps, match_features
from stackalign.core.deep.requirement import choose_device, require_torch
from stackalign.core.threads import threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.deep.matching import Matched
    from stackalign.core.deep.networks.base import PairNetwork
    from stackalign.core.deep.networks.description import LearntDescription
    from stackalign.core.deep.networks.features import InvariantFeatures
    from stackalign.core.multimodal.refine import FeatureImage


def feature_maps(network: InvariantFeatures, image: NDArray[Any], *, device: str = "cpu") -> FeatureMaps:
    """Return the features of one plane, (y, x); pixels that are not known are filled from their neighbours.

    Raises
    ------
    ImportError
        If PyTorch is missing.
    ValueError
        If the machine has no such device.
    """
    require_torch("features of a network")
    import torch

    from stackalign.core.frames.holes import filled_from_nearest

    plane = np.asarray(image, np.float32)
    known = np.isfinite(plane)
    if not known.all():
        plane = filled_from_nearest(plane, known)
    place = choose_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(plane))[None, None].to(place)
            coarse, fine = network.to(place).eval()(tensor)
            sharp = network.log_sharpness.clamp(max=4.0).exp().tolist()
            maps = [m[0].float().cpu().numpy() for m in (coarse, fine)]
    finally:
        torch.set_num_threads(before)
    if not known.all():  # places that were made up weigh nothing
        for values, step in zip(maps, (CELL, DOT), strict=True):
            rows, columns = (
                np.minimum(step * np.arange(n) + step // 2, m - 1)
                for n, m in zip(values.shape[1:], known.shape, strict=True)
            )
            values *= known[np.ix_(rows, columns)]
    return FeatureMaps(maps[0], maps[1], (plane.shape[0], plane.shape[1]), (float(sharp[0]), float(sharp[1])))


def described(network: LearntDescription, image: NDArray[Any], *, device: str = "cpu") -> FeatureImage:
    """Return what a network makes of self-similarity and edges, as `stackalign.core.multimodal.features.describe`.

    Parameters
    ----------
    network : LearntDescription
    image : ndarray (y, x)
        Not a number: not known.
    device : str

    Raises
    ------
    ValueError
        If the machine has no such device.
    """
    import torch

    from stackalign.core.deep.networks.description import channels
    from stackalign.core.multimodal.refine import FeatureImage

    full, half, known = channels(image)
    place = choose_device(device)
    with torch.inference_mode():
        maps = [torch.from_numpy(m)[None].to(place) for m in (full, half)]
        values = network.to(place).eval()(*maps)[0].permute(1, 2, 0).float().cpu().numpy()
    return FeatureImage(np.ascontiguousarray(values), known)


def match_images(
    network: InvariantFeatures, reference: NDArray[Any], moving: NDArray[Any], *, device: str = "cpu", seed: int = 0
) -> Matched:
    """Find where one plane lies in another by their features; see `match_features`."""
    maps = [feature_maps(network, image, device=device) for image in (reference, moving)]
    return match_features(maps[0], maps[1], seed=seed)


def regressed_corners(
    network: PairNetwork, reference: NDArray[Any], moving: NDArray[Any], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return where a network that regresses them puts the corners of one plane in the other, (4, 2), pixels (y, x).

    Pixels that are not known are filled from their neighbours.

    Raises
    ------
    ValueError
        If the machine has no such device.
    """
    import torch

    place = choose_device(device)
    with torch.inference_mode():
        first, second = (torch.from_numpy(_filled(i))[None, None].to(place) for i in (reference, moving))
        return np.asarray(network.to(place).eval().corners(first, second)[0].double().cpu().numpy())


def _filled(image: NDArray[Any]) -> NDArray[np.float32]:
    from stackalign.core.frames.holes import filled_from_nearest

    plane = np.ascontiguousarray(image, np.float32)
    known = np.isfinite(plane)
    return plane if known.all() else np.ascontiguousarray(filled_from_nearest(plane, known), np.float32)
