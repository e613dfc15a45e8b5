"""A viewer with a movie that moves by known pixels, the panel beside it, and a registrar that does as it is told."""

import gc
import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from pydantic import Field

from stackalign.core.registration import FrameQuality, RegistrarParameters, Registration
from stackalign.core.transform_series import TransformSeries
from stackalign.core.work import Progress
from stackalign.widgets.align_stack import AlignStack

ERRORS: dict[str, BaseException] = {
    "ValueError": ValueError("frame 2 is constant: there is nothing to align it by"),
    "RuntimeError": RuntimeError("the solver diverged in frame 3"),
    "MemoryError": MemoryError(),
    "OSError": OSError(5, "Input/output error", "movie.tif"),
    "KeyError": KeyError("t"),
    "SystemExit": SystemExit(3),
}


class Told(RegistrarParameters):
    """Returns the shifts that the test movie was made with, slowly or not at all."""

    method: Literal["told"] = "told"
    seconds: float = Field(0.0, title="Seconds a frame", description="How long each step takes")
    error: str = Field("", title="Error", description="What to raise after two frames")
    partial: bool = Field(True, title="Partial", description="Whether steps carry what is done")
    hang: float = Field(0.0, title="Hang", description="Seconds that the third step hangs")

    def fit(self, stack: Any, *, reference: Any = None, anchor: Any = None, mask: Any = None) -> Any:
        shifts = -drifts(len(stack))[:, -stack.ndim :]
        for t in range(len(stack)):
            time.sleep(self.seconds)
            if self.hang and t == 2:
                time.sleep(self.hang)
            if self.error and t == 2:
                raise ERRORS[self.error]
            yield Progress(t + 1, len(stack), "Telling", result(shifts[: t + 1]) if self.partial else None)
        return result(shifts)


def drifts(count: int) -> np.ndarray:
    """Return (T, 3) whole pixels along z, y, x that frame t has moved by."""
    t = np.arange(count)
    return np.stack([t % 2, t, -2 * (t % 4)], axis=1).astype(float)


def result(shifts: np.ndarray) -> Registration:
    n, d = shifts.shape
    reasons = tuple("too dark" if t == 4 else "" for t in range(n))
    quality = FrameQuality(np.ones(n), np.zeros(n), np.ones(n), np.full((n, d), 0.02), reasons)
    return Registration(TransformSeries.from_translations(shifts), quality, provenance={"method": "told"})


def movie(count: int = 8, shape: tuple[int, ...] = (48, 64), dtype: Any = np.uint16) -> np.ndarray:
    """Return frames of one scene, moved by `drifts`."""
    rng = np.random.default_rng(3)
    scene = (rng.random(shape) ** 6 * 2000 + 100).astype(dtype)
    axes = tuple(range(len(shape)))
    return np.stack([np.roll(scene, tuple(int(v) for v in d[-len(shape) :]), axes) for d in drifts(count)])


@pytest.fixture(autouse=True)
def _little_garbage() -> None:
    """Let napari, which collects garbage with every layer that goes, look only through what one test made."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def panel(viewer: Any, qtbot: Any) -> Generator[AlignStack, None, None]:
    """Return the panel docked beside a calibrated movie, its method told the answer."""
    viewer.add_image(
        movie(),
        name="movie",
        scale=(0.5, 0.1, 0.1),
        translate=(0, 5, 7),
        units=("s", "um", "um"),
        axis_labels=("t", "y", "x"),
        colormap="magenta",
        contrast_limits=(100, 1500),
    )
    widget = AlignStack(viewer)
    viewer.window.add_dock_widget(widget, name="Align stack")
    widget.session.change(registrar=Told())
    yield widget
    widget.shut()


@pytest.fixture
def align(panel: AlignStack, qtbot: Any) -> Callable[..., None]:
    """Click the button and wait for the end of the run."""

    def run(**parameters: Any) -> None:
        panel.session.change(registrar=Told(**parameters))
        panel.run.button.click()
        qtbot.waitUntil(lambda: not panel.runner.busy, timeout=10_000)

    return run
