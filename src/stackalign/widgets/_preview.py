"""The time slider as a frame number, and the instant preview: the current frame's matrix in ``layer.affine``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from stackalign.widgets._layers import data_to_physical, frame_affine, spatial_axes, time_axis

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

_BLINK_MS = 450
# the own affine of layers that are previewed: several panels may preview the same layer
_OWN: WeakKeyDictionary[Layer, NDArray[np.float64]] = WeakKeyDictionary()


class FrameCursor(QObject):
    """Which frame of a layer the viewer shows.

    Signals
    -------
    moved(int)
        The frame that is shown now.
    """

    moved = Signal(int)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Image | None = None
        self._axis = -3
        self._scale, self._offset = 1.0, 0.0
        self._last = -1
        # before napari slices: the preview's matrix must stand when the frame is drawn
        viewer.dims.events.point.connect(self._on_point, position="first")

    def follow(self, layer: Image | None, axes: str = "tyx") -> None:
        """Watch the time axis of ``layer``; None: nothing."""
        self._layer = layer
        self._last = -1
        if layer is None:
            return
        self._axis = time_axis(layer, axes)
        physical = np.asarray(layer.affine.affine_matrix) @ data_to_physical(layer)
        k = self._axis % layer.ndim
        self._scale, self._offset = float(physical[k, k]) or 1.0, float(physical[k, -1])
        self._on_point()

    @property
    def frame(self) -> int:
        """The frame of the layer that is shown, clipped to its frames; 0 without a layer."""
        layer = self._layer
        point = self._viewer.dims.point
        if layer is None or len(point) < -self._axis:
            return 0
        frame = round((point[self._axis] - self._offset) / self._scale)
        return int(np.clip(frame, 0, layer.data.shape[self._axis - bool(layer.rgb)] - 1))

    def go_to(self, frame: int) -> None:
        """Move the time slider to ``frame``."""
        if self._layer is not None:
            axis = self._viewer.dims.ndim + self._axis
            self._viewer.dims.set_point(axis, frame * self._scale + self._offset)

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.dims.events.point.disconnect(self._on_point)
        self._layer = None

    def _on_point(self, event: object = None) -> None:
        if self._layer is not None and (frame := self.frame) != self._last:
            self._last = frame
            self.moved.emit(frame)


class Preview(QObject):
    """Shows layers aligned, frame by frame, without resampling anything.

    The matrix is written into the layer's affine in place and announced with its event: ``layer.affine = ...`` would
    slice the layer once more and empty its cached extent, which halves the frame rate.

    Signals
    -------
    toggled(bool)
        Whether the layers are shown aligned now.
    """

    toggled = Signal(bool)

    def __init__(self, cursor: FrameCursor, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._cursor = cursor
        self._matrices: NDArray[np.float64] | None = None
        self._first = 0
        self._layers: list[tuple[Layer, NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]] = []
        self._on = False
        self._blink = QTimer(self, interval=_BLINK_MS)
        self._blink.timeout.connect(lambda: self.show(not self._on))
        cursor.moved.connect(self._on_frame)

    @property
    def on(self) -> bool:
        """Whether the layers are shown aligned."""
        return self._on

    @property
    def blinking(self) -> bool:
        """Whether before and after alternate."""
        return self._blink.isActive()

    def load(self, layers: list[Image], axes: str, matrices: NDArray[np.float64] | None, first: int = 0) -> None:
        """Prepare the preview; a preview that was on shows the new matrices at once.

        Parameters
        ----------
        layers : list of Image
            The movie, and further channels that move with it.
        axes : str
            A letter for each axis of the layers.
        matrices : ndarray (T, d+1, d+1) or None
            Moving -> reference, pixels; None: nothing to show.
        first : int
            The layers' frame to which ``matrices[0]`` belongs.
        """
        was = self._on
        self.show(False)
        self._matrices, self._first = matrices, first
        planes = spatial_axes(axes)
        self._layers = [(layer, data_to_physical(layer), own_affine(layer), planes) for layer in layers]
        if matrices is None:
            self.blink(False)
        elif was:
            self.show(True)

    def base_of(self, layer: Layer) -> NDArray[np.float64]:
        """Return a layer's own affine, whether it is previewed or not."""
        own = next((base for known, _, base, _ in self._layers if known is layer), None)
        return own_affine(layer) if own is None else own

    def show(self, on: bool) -> None:
        """Show the layers aligned, or as they are."""
        on = on and self._matrices is not None
        if on == self._on:
            return
        if on:  # another panel may have put the layers elsewhere since
            self._layers = [(la, data_to_physical(la), own_affine(la), planes) for la, _, _, planes in self._layers]
        self._on = on
        self._draw()
        self.toggled.emit(on)

    def blink(self, on: bool) -> None:
        """Alternate before and after."""
        if on and self._matrices is not None:
            self._blink.start()
        else:
            self._blink.stop()

    def _on_frame(self, _frame: int) -> None:
        if self._on:  # a preview that is off leaves the layer to others
            self._draw()

    def _draw(self) -> None:
        if self._matrices is None or not self._layers:
            return
        t = self._cursor.frame - self._first
        shown = self._on and 0 <= t < len(self._matrices)
        for layer, physical, base, planes in self._layers:
            if self._on:
                _OWN.setdefault(layer, base)
            else:
                _OWN.pop(layer, None)
            _put(layer, frame_affine(self._matrices[t], physical, base, planes) if shown else base)

    def close(self) -> None:
        """Leave the layers as they were found."""
        self._blink.stop()
        self.show(False)
        self._layers = []


def own_affine(layer: Layer) -> NDArray[np.float64]:
    """Return a layer's own affine, whether some panel previews it or not."""
    own = _OWN.get(layer)
    return np.array(layer.affine.affine_matrix, float) if own is None else own


def is_previewed(layer: Layer) -> bool:
    """Return whether some panel shows a layer aligned, so that its affine is not its own."""
    return layer in _OWN


def _put(layer: Layer, affine: NDArray[np.float64]) -> None:
    own = layer.affine
    if not np.array_equal(own.affine_matrix, affine):
        own.affine_matrix = affine
        layer.events.affine()
