"""Say how likely a homography is right, and refuse it if that is not likely enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

RIGHT = 3.0  # px: mean corner error up to which a result counts as right
PLACE_SIDE = 1.3  # px: length over which the score of wrong places changes
BLOCK_SIDE = 3.0  # px: along each axis, where a block is said to agree
_RELIEF = 0.1  # share of neighbours that go elsewhere together: more than accident brings
FAR = 64.0  # distances and heights beyond are as good as infinite
OTHERWISE = "other features find it elsewhere, and that is about as likely"
#: of the logistic model, fitted to 600 synthetic pairs (0 to 599; of many strengths, every third with relief, every
#: tenth unrelated) by ``python -m tests.benchmarks.bench_multimodal --calibrate 600``
COEFFICIENTS = (3.925, -2.984, 0.094, -1.662, -0.954, -0.627, -0.481, -1.016, 3.935, -13.721)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against a result; distances are mean corner distances in pixels of the moving image.

    Attributes
    ----------
    score : float
        Correlation of the features over the overlap.
    chance : float
        Height of that score above the scores of wrong places, in standard deviations of those.
    rival : float
        Best score of another place over this one's: 1 if another is as good.
    inverse : float
        Distance between the result and the one found with the roles of both images exchanged; where one of them holds
        the noise, that of the restarts.
    restarts : float
        Median distance between the result and where disturbed restarts end.
    subsets : float
        Distance between the results of two families of features, or of two halves of the channels.
    spread : float
        Standard error of the corners that curvature and residual imply.
    overlap : float
        Share of the smaller image that both show.
    size : float
        Side of the smaller image, root of its pixels.
    places : float
        How many places the best one was chosen from: the ranges of what was searched for (shift, rotation, scale), each
        over the length that scores of wrong places change over.
    dimensions : int
        How many of those there are: 2 to 4.
    blocks : int
        How many blocks of what both show tell where they belong.
    agreeing : int
        How many of those belong where they lie, to a pixel.
    accident : float
        The share of those that would by accident.
    freedom : int
        Numbers of the motion that were not searched for, but only refined: 0 to 4.
    together : float
        Share of neighbours among the blocks that belong elsewhere, both by the same shift: relief, or what moved.
    """

    score: float
    chance: float
    rival: float
    inverse: float
    restarts: float
    subsets: float
    spread: float
    overlap: float
    size: float
    places: float
    dimensions: int = 2
    blocks: int = 0
    agreeing: int = 0
    accident: float = 1.0
    freedom: int = 0
    together: float = 0.0

    @property
    def by_chance(self) -> float:
        """The probability that chance alone put the best of all wrong places as high, both being as likely before.

        The best place of two unrelated images is always consistent with itself, the more so the fewer numbers a motion
        has: only how well the images agree there tells. How high the correlation is tests that, and how many blocks
        agree, where any can: of two tests the smaller p counts, twice. It is turned into odds by their bound -e p ln p
        (Sellke, Bayarri & Berger, American Statistician 55, 2001, eq. 2 and 3).
        """
        p = self._chance_of_height()
        if self.blocks:
            p = min(2 * min(p, self._chance_of_blocks()), 1.0)
        p = max(p, 1e-300)
        odds = -np.e * p * np.log(p)
        return float(odds / (1 + odds)) if p < 1 / np.e else 0.5 + 0.5 * float((p - 1 / np.e) / (1 - 1 / np.e))

    def _chance_of_height(self) -> float:
        """Return the p that one of all wrong places lies as high as this one.

        The expected number of peaks of a smooth Gaussian field in D dimensions above a height z is places z^(D - 1)
        exp(-z^2 / 2) / (2 pi)^((D + 1) / 2) (Worsley et al., Human Brain Mapping 4, 1996, the leading power of the term
        of the volume). The best other place is wrong for sure: where it lies higher than the highest of so many is
        expected to, the field has heavier tails, and the height is measured in units of that one instead.
        """
        if not np.isfinite(self.chance) or self.chance <= 1:
            return 1.0
        power = self.dimensions - 1
        density, highest = max(self.places, np.e) / (2 * np.pi) ** (0.5 * power + 1), 3.0
        for _ in range(8):  # one peak is expected above it
            highest = float(np.sqrt(2 * np.log(max(density * highest**power, np.e))))
        height = max(min(self.chance, highest / max(self.rival, 1e-3)), 1.0)
        return float(-np.expm1(-density * height**power * np.exp(-(height**2) / 2)))

    def _chance_of_blocks(self) -> float:
        """Return the p that as many blocks agree at one of all wrong places.

        A contrario (Moisan & Stival, Int. J. Computer Vision 57, 2004, sec. 3): the number of places that a block tells
        apart, times the tail of the binomial distribution. What was only refined can make a block agree for each two
        numbers.
        """
        from scipy.stats import binom

        given = self.freedom / 2
        if self.agreeing <= given:
            return 1.0
        tests = max(self.places * (PLACE_SIDE / BLOCK_SIDE) ** self.dimensions, 1.0)
        tail = binom.sf(np.ceil(self.agreeing - given) - 1, np.ceil(self.blocks - given), min(self.accident, 1.0))
        return float(min(tests * tail, 1.0))

    def regressors(self) -> Array:
        """Return the regressors of the logistic model, (10,): distances and heights on scales that saturate."""

        def log(distance: float) -> float:
            return float(np.log1p(np.clip(np.nan_to_num(distance, nan=FAR, posinf=FAR), 0.0, FAR)))

        return np.array(
            [
                1.0,
                self.score,
                log(self.chance),
                float(np.clip(self.rival, 0.0, 2.0)),
                log(self.inverse),
                log(self.restarts),
                log(self.subsets),
                log(self.spread),
                (self.agreeing + 0.5) / (self.blocks + 1),
                self.together,
            ]
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a result can be trusted.

    Attributes
    ----------
    probability : float
        That the mean corner error is under 3 pixels.
    refused : bool
        Whether it is too small.
    reason : str
        The strongest objection, in words; empty if it is not refused.
    """

    probability: float
    refused: bool
    reason: str


def judge(evidence: Evidence, *, threshold: float = 0.7, coefficients: ArrayLike = COEFFICIENTS) -> Verdict:
    """Return how likely a result is right: that it is not the best of many wrong places, times what else speaks for it.

    Parameters
    ----------
    evidence : Evidence
        Of `stackalign.core.multimodal.matching.match`.
    threshold : float
        Probability below which the result is refused.
    coefficients : array_like (10,)
        Of the logistic model, in the order of `Evidence.regressors`. Features of another kind need their own.
    """
    consistent = float(1 / (1 + np.exp(-np.asarray(coefficients, float) @ evidence.regressors())))
    probability = consistent * (1 - evidence.by_chance)
    refused = not probability >= threshold
    return Verdict(probability, refused, _objection(evidence) if refused else "")


def among(probability: float, others: Iterable[float]) -> float:
    """Return the probability of an answer beside others that exclude it: what each was said to be, one of them or none.

    Bayes' rule for answers of which one is right at most: the odds of each against none of them add up.
    """
    odds = [p / max(1 - p, 1e-12) for p in (probability, *others)]
    return odds[0] / (1 + sum(odds))


def fitted(regressors: ArrayLike, right: ArrayLike, *, ridge: float = 1.0) -> Array:
    """Return the coefficients of the logistic model that fits which results were right.

    Maximum likelihood by Newton's method, with a Gaussian prior of precision ``ridge`` on the standardised slopes.

    Parameters
    ----------
    regressors : array_like (N, 10)
    right : array_like of bool (N,)
    """
    x, y = np.asarray(regressors, float), np.asarray(right, float)
    mean, spread = x[:, 1:].mean(0), np.maximum(x[:, 1:].std(0), 1e-9)
    z = np.c_[np.ones(len(x)), (x[:, 1:] - mean) / spread]
    prior = np.diag([1e-6] + [ridge] * (x.shape[1] - 1))
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-z @ w))
        step = np.linalg.solve((z * (p * (1 - p))[:, None]).T @ z + prior, z.T @ (y - p) - prior @ w)
        w += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    slopes = w[1:] / spread
    return np.asarray(np.concatenate([[w[0] - slopes @ mean], slopes]))


def _objection(evidence: Evidence) -> str:
    """Return in words what speaks most against a result."""
    e = evidence
    if e.by_chance > 0.2:
        return (
            f"the images agree no better there than elsewhere (correlation {e.score:.2f}, {e.chance:.1f} standard"
            " deviations above shifted copies)"
        )
    if e.rival > 0.95:
        return f"another place fits as well ({100 * e.rival:.0f} % of the best correlation)"
    distances = {
        "exchanging the images moves the corners": e.inverse,
        "restarts from beside it end apart, the corners": e.restarts,
        "edges and self-similarity disagree on the corners": e.subsets,
    }
    words, distance = max(distances.items(), key=lambda item: item[1])
    if distance > RIGHT:
        far = f"by {distance:.0f} px" if np.isfinite(distance) else "without an end"
        return f"{words} {far}"
    if e.together > _RELIEF:
        share = f"{100 * e.together:.0f} % of neighbouring parts"
        return f"{share} belong elsewhere together: one motion does not hold for all of the scene"
    if e.spread > 1:
        return f"the structure that both share fixes the corners to {e.spread:.1f} px only"
    return f"the correlation of the features is only {e.score:.2f}"
