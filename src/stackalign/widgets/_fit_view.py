"""A fit as it is seen: data, model and residual, the profile, the numbers with their errors, the verdict in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QVBoxLayout

from stackalign.picking import numbers_of, patches_of, reason_of
from stackalign.widgets._patch_view import PatchView
from stackalign.widgets._plot import BAD, GOOD
from stackalign.widgets._style import note, say

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.spots.gaussian import SpotFit


class FitView(QVBoxLayout):
    """Patches, numbers and verdict below each other."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = PatchView()
        self.numbers = note()
        self.verdict = note(strong=True)
        self.setSpacing(6)
        for part in (self.patches, self.numbers, self.verdict):
            self.addWidget(part)

    def show_fit(
        self, image: NDArray[Any], fit: SpotFit, who: str, pixel_size: tuple[float, ...] | None, unit: str
    ) -> None:
        """Show a fit in its image; ``who`` is whose fit it is, lengths are also given in ``unit``."""
        self.patches.show_patches(patches_of(image, fit), fit)
        say(self.numbers, numbers_of(fit, pixel_size, unit))
        reason = reason_of(fit)
        self.verdict.setStyleSheet(f"font-weight: 600; color: {BAD if reason else GOOD};")
        say(self.verdict, f"✗ {who}: {reason}" if reason else f"✓ {who}: good fit")

    def show_nothing(self, words: str = "") -> None:
        """Show no fit, and say what to do instead."""
        self.patches.show_patches(None)
        say(self.numbers, words)
        say(self.verdict, "")
