"""What joint alignment computes on pixels: the contract that compiled functions and torch keep, each in its own way.

`Images` is what the frames have in common at one size, `Comparison` some frames against it. Everything else, levels,
rounds, steps, verdicts, is written once and asks these two. Arrays that cross the border are NumPy's, on the host;
small systems are float64 there, images float32 wherever they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stackalign.core.frames.noise import NoiseModel

    Floats = NDArray[np.float32]
    Array = NDArray[np.float64]
    # the motion's and the coefficients' normal matrix and right side, the loss, and the pixels it was summed over
    Equations = tuple[Array, Array, float, float]
    # aligns frames, given by number and ready to be compared, and adds them to totals
    Align = Callable[[Sequence[int], Sequence[Any], Any], list[tuple[float, float]]]

SEEN = 0.25  # of the frames that show the pixel that most show: what fewer show is not known
AGREED = 0.5  # of the usual robust weight of a frame: not quite half of the frames then show something else
REACH = 2  # pixels, at full size: what lies as near to something sparse is its blurred border


class Comparison(Protocol):
    """Some frames on the grid of the reference, and what they differ by from their low-rank images.

    ``which`` names frames by their place in the list that the comparison was made of; matrices (moving -> reference),
    coefficients and limits are those of the frames named, in their order. A limit is the residual from which the
    loss is linear. Holes of a frame do not count where it lay when the comparison was made.
    """

    def place(self, which: Sequence[int], matrices: Sequence[Array], coefficients: Sequence[Array]) -> None:
        """Read frames where they lie, and take their low-rank images off."""

    def spreads(self, which: Sequence[int]) -> list[tuple[int, float]]:
        """Return how many pixels of some rows count, and the robust standard deviation of what these differ by."""

    def sample(self, i: int) -> Floats:
        """Return low-rank intensities, differences, precisions, largest differences nearby of these pixels, (4, N)."""

    def equations(self, which: Sequence[int], limits: Sequence[float]) -> list[Equations]:
        """Linearise frames, where they were read, against their low-rank images."""

    def add(
        self,
        which: Sequence[int],
        matrices: Sequence[Array],
        coefficients: Sequence[Array],
        limits: Sequence[float],
        totals: Any,
    ) -> None:
        """Add frames, as they were read, to the normal equations of the images; holes are those at the matrices."""

    def seen(self, i: int) -> Floats:
        """Return a frame as it was read, (z, y, x), NaN where it shows nothing that counts."""


class Images(Protocol):
    """What frames have in common at one size: images, their weights and slopes, and their normal equations.

    Attributes
    ----------
    together : int
        Frames that are best compared at once.
    room : int
        Bytes of frames, ready to be compared, that may be kept.
    totals : object
        Normal equations of the images, as `new_totals` returns them.
    """

    together: int
    room: int
    totals: Any

    @property
    def basis(self) -> Floats:
        """The images (k, z, y, x)."""

    @property
    def known(self) -> Floats:
        """Precision (z, y, x) of each pixel for the motion, relative to the usual one; 0 where it does not count."""

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Pixels (z, y, x) that enough frames show."""

    @property
    def counted(self) -> int:
        """Number of pixels that are known."""

    def frame(self, image: Floats) -> Any:
        """Return a reduced frame, NaN in its holes, ready to be compared."""

    def compare(self, frames: Sequence[Any], matrices: Sequence[Array]) -> Comparison:
        """Return frames that lie at ``matrices``, ready to be placed."""

    def new_totals(self, rank: int) -> Any:
        """Return normal equations of so many images to which nothing has been added."""

    def weights(self, totals: Any) -> Floats:
        """Return totals of one image on the host: weights, weighted sum and number of frames, (3, z, y, x)."""

    def accumulate(self, batch: Sequence[int], align: Align) -> Iterator[tuple[float, float]]:
        """Align frames and add them to ``totals``; yields the loss and the pixels of each."""

    def fade(self, keep: float) -> None:
        """Keep that share of the totals."""

    def start(self, basis: Floats, known: Floats | None) -> None:
        """Begin with images (k, z, y, x), and, if given, the precision of their pixels."""

    def solve(self) -> None:
        """Solve for the images where enough frames show a pixel; where these agree the pixel counts for the motion."""

    def orthonormal(self) -> Array | None:
        """Make the images orthonormal on what is known; returns by what coefficients are to be multiplied (k, k)."""

    def weigh(self, noise: NoiseModel | None, usual: float, typical: Array) -> None:
        """Give each pixel the precision that the noise at its brightness leaves it, ``usual``: the usual variance."""

    def settle(self) -> None:
        """Work out what is known, and the slopes there, from the images and the weights."""
