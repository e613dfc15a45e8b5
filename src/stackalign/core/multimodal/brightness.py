"""Features for images that show the same brightness, or its negative, in much noise: brightness itself, in two bands.

Self-similarity and edges are of no use where each pixel is mostly noise. Brightness averages it out, if it means the
same in both images up to a sign: correlation of what is left of it without its slow changes then is all that can be
known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.multimodal.features import away_from_holes, blurred_once, contrast_plane
from stackalign.core.multimodal.refine import FeatureImage
from stackalign.core.verdicts.agreement import noise_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stackalign.core.multimodal.matching import Match
    from stackalign.core.multimodal.places import Noisy
    from stackalign.core.multimodal.views import Views

#: standard deviations, px, of the Gaussians whose difference is a band, and how many times the larger its window is
BANDS = ((0.6, 2.0), (1.5, 5.0))
_WINDOW = 1.5
_FLOOR = 1.0  # of the mean energy, is added to the local one: noise must not be raised to the strength of structure
_MARGIN, _FADING = 2, 3.0  # px: of a hole, what is left out, and over which what lies next to it comes to count
#: of the judge, as `stackalign.core.multimodal.judge.COEFFICIENTS`, fitted to 240 synthetic pairs (every eighth
#: unrelated, none with relief: what tells of that are the other features, as there) by ``python -m
#: tests.benchmarks.bench_multimodal --calibrate 240 --way brightness``; restarts count twice
COEFFICIENTS = (-1.223, -0.295, 1.710, -0.733, -0.672, -0.672, -0.634, -0.936, 1.955, -13.721)
# brightness is cheap to compare, and the right place is reached from less far than with other features
_SEARCH: dict[str, Any] = {
    "blocks": 4, "block_size": 0.4, "candidates": 48, "keep": 12, "restarts": 3, "rounds": 10, "disturb": 0.08,
    "pursued": 12, "by_energy": True,
}  # fmt: skip


def match_brightness(views: Views, *, angles: Sequence[float], scales: Sequence[float], **options: Any) -> Match | None:
    """Find where the moving image lies by its brightness, or the negative of it, whichever fits better.

    Parameters
    ----------
    views : Views
        Of both images, of other features, which are asked whether they agree.
    angles, scales : sequence of float
        Rotations (radians) and magnifications to look through.
    **options
        Of `stackalign.core.multimodal.matching.match`.

    Returns
    -------
    Match or None
        None if nothing can be compared.
    """
    from stackalign.core.multimodal.matching import found_places, match

    both = [views.described(describe_brightness, sign) for sign in (1.0, -1.0)]
    limits = {key: options[key] for key in ("max_shift", "least_overlap") if key in options}
    places = [found_places(seen, angles=angles, scales=scales, count=1, by_energy=True, **limits) for seen in both]
    tops = [found[0].score if found else -1.0 for found in places]
    chosen = both[int(np.argmax(tops))]
    return match(
        chosen,
        angles=angles,
        scales=scales,
        families=(),
        noisy=noisier(*views.images()),
        second=views,
        **_SEARCH,
        **options,
    )


def describe_brightness(image: NDArray[Any]) -> FeatureImage:
    """Return brightness in two bands, each of mean 0 and mean energy 1, over the root of its local energy.

    Parameters
    ----------
    image : ndarray (y, x)
        Not a number: not known.

    Returns
    -------
    FeatureImage
        Two channels; the negative of an image has their negatives. Pixels that are not known weigh nothing, and those
        within a few pixels of them less than 1.
    """
    plane, known = contrast_plane(image)
    inside = away_from_holes(known, _MARGIN)
    values = np.zeros((*plane.shape, len(BANDS)), np.float32)
    weight = inside.astype(np.float32)
    if not inside.any():
        return FeatureImage(values, weight)
    for k, (fine, coarse) in enumerate(BANDS):
        band = blurred_once(plane, fine) - blurred_once(plane, coarse)
        band[~inside] = 0
        energy = band * band
        floor = np.float32(_FLOOR * float(energy[inside].mean()) + 1e-20)
        band /= np.sqrt(blurred_once(energy, _WINDOW * coarse) + floor)
        part = band[inside]
        values[..., k] = (band - part.mean()) / max(float(part.std()), 1e-12)
    if not inside.all():
        weight *= np.clip(2 * blurred_once(weight, _FADING) - 1, 0, 1)
    return FeatureImage(values, weight)


def noisier(fixed: NDArray[Any], moving: NDArray[Any]) -> Noisy:
    """Return which of two images holds more noise, in units of its contrast."""
    return "moving" if _share_of_noise(moving) >= _share_of_noise(fixed) else "fixed"


def _share_of_noise(image: NDArray[Any]) -> float:
    """Return the share of the variance of an image that is noise of its pixels."""
    known = image[np.isfinite(image)]
    variance = float(known.var(dtype=float)) if known.size else 0.0
    return noise_variance(image) / variance if variance > 0 else 0.0
