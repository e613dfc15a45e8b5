"""Which movie: a layer or a file, what its axes are, which channel, which frames."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QMenu, QSpinBox, QVBoxLayout, QWidget

from stackalign.io.errors import ChannelChoiceError, StackReadError
from stackalign.widgets._errors import show_error
from stackalign.widgets._layers import axes_choices, channels_of, is_movie, movie_of
from stackalign.widgets._style import keep_wheel_away, menu_button, narrow, narrow_combo, note, row, say

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from stackalign.session import AlignmentSession, Movie

_MEANING = {"t": "time", "z": "z", "c": "channel", "y": "y", "x": "x"}


class MovieSection(QWidget):
    """Chooses the session's movie and time range.

    Signals
    -------
    obstacle(str)
        What the user has to say first; empty if nothing is open.
    """

    obstacle = Signal(str)

    def __init__(self, viewer: ViewerModel, session: AlignmentSession, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self._filling = False
        self._watched: WeakSet[Layer] = WeakSet()
        self.layers = narrow_combo()
        self.layers.setToolTip("The image layer to align: any with an axis before y and x")
        self.open = menu_button("Open ▾", "Open a movie from a file or a folder")
        menu = QMenu(self.open)
        menu.addAction("File…", self._open_file)
        menu.addAction("Folder of images, or OME-Zarr…", self._open_folder)
        self.open.setMenu(menu)
        self.about = note()
        self.axes = narrow_combo()
        self.channel = narrow_combo()
        self.axes_row = row("Axes", self.axes, tip="Nothing in the layer says which axis is time: say so here")
        self.channel_row = row("Channel", self.channel, tip="The channel that the motion is measured on")
        self.start, self.stop = QSpinBox(), QSpinBox()
        for box in (self.start, self.stop):
            keep_wheel_away(box)
            box.setKeyboardTracking(False)
            narrow(box)
            box.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)  # six digits must fit
        self.start.setToolTip("First frame, counted from 0")
        self.stop.setToolTip("Last frame, counted from 0")
        span = QWidget()
        line = QHBoxLayout(span)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.start, 1)
        line.addWidget(QLabel("to"))
        line.addWidget(self.stop, 1)
        self.frames_row = row("Frames", span, tip="Time range: only these frames are aligned")

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(row("Movie", self.layers, self.open))
        for widget in (self.about, self.axes_row, self.channel_row, self.frames_row):
            column.addWidget(widget)

        self.layers.currentIndexChanged.connect(self._on_layer)
        self.axes.currentIndexChanged.connect(self._on_axes)
        self.channel.currentIndexChanged.connect(self._on_channel)
        self.start.valueChanged.connect(self._on_frames)
        self.stop.valueChanged.connect(self._on_frames)
        self._later = QTimer(self, singleShot=True, interval=0)  # several layers may come and go in one go
        self._later.timeout.connect(self.refresh)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self._on_layers)
        session.events.movie.connect(self._show_movie)
        session.events.choices.connect(self._show_frames)
        # another panel may have chosen already
        self.refresh(prefer=self._selected_layer() if session.movie is None else session.movie.key)
        self._show_movie(session.movie)

    # what is chosen

    @property
    def layer(self) -> Image | None:
        """The layer of the session's movie, if it is still there."""
        movie = self._session.movie
        return None if movie is None else self._find(movie.key)

    def _find(self, key: str) -> Image | None:
        return next((layer for layer in self._viewer.layers if layer.unique_id == key), None)

    def _selected_layer(self) -> str | None:
        active = self._viewer.layers.selection.active
        return active.unique_id if active is not None and is_movie(active) else None

    # layers come and go

    def _on_layers(self, event: Any = None) -> None:
        self._later.start()

    def refresh(self, prefer: str | None = None) -> None:
        """List the layers again; keep the choice if it is still there."""
        for layer in self._viewer.layers:
            if layer not in self._watched:
                self._watched.add(layer)
                layer.events.name.connect(self._on_layers)
        movies = [layer for layer in self._viewer.layers if is_movie(layer)]
        known = [layer.unique_id for layer in movies]
        chosen = self.layers.currentData()
        wanted = next((key for key in (chosen, prefer, *reversed(known)) if key in known), None)
        if chosen is None and prefer is None:
            wanted = self._selected_layer() or wanted
        self._filling = True
        self.layers.clear()
        for layer in movies:
            self.layers.addItem(layer.name, layer.unique_id)
        if not movies:
            self.layers.addItem("no movie yet", None)
        self.layers.setEnabled(bool(movies))
        self.layers.setCurrentIndex(max(self.layers.findData(wanted), 0))
        self._filling = False
        if wanted != chosen or (self._session.movie is not None and self._session.movie.key not in known):
            self._on_layer()

    def _on_layer(self) -> None:
        if self._filling:
            return
        key = self.layers.currentData()
        movie = self._session.movie
        if movie is not None and movie.key == key:
            return
        layer = None if key is None else self._find(key)
        self._filling = True
        self.axes.clear()
        self.channel.clear()
        if layer is not None:
            choices, settled = axes_choices(layer)
            if not settled:
                self.axes.addItem("which axis is time?", None)
            for choice in choices:
                self.axes.addItem(_describe(choice, layer.data.shape), choice)
            self.axes.setCurrentIndex(0)
        self.axes_row.setVisible(layer is not None and self.axes.count() > 1)
        self._filling = False
        self._on_axes()

    def _on_axes(self) -> None:
        if self._filling:
            return
        layer = self._find(self.layers.currentData()) if self.layers.currentData() else None
        axes = self.axes.currentData()
        self._filling = True
        self.channel.clear()
        if layer is not None and axes is not None:
            for channel in channels_of(layer, axes):
                self.channel.addItem("brightness" if channel == "luminance" else f"channel {channel}", channel)
        self.channel_row.setVisible(self.channel.count() > 0)
        self._filling = False
        self._on_channel()

    def _on_channel(self) -> None:
        if self._filling:
            return
        layer = self._find(self.layers.currentData()) if self.layers.currentData() else None
        axes = self.axes.currentData()
        if layer is None or axes is None:
            self._session.open_movie(None)
            self.obstacle.emit("" if layer is None else "Say which axis is time")
            return
        try:
            movie = movie_of(layer, axes, self.channel.currentData())
        except (OSError, ValueError) as error:
            self._session.open_movie(None)
            self.obstacle.emit("This layer cannot be read")
            show_error("Reading the layer", error, self.window())
            return
        self.obstacle.emit("")
        self._session.open_movie(movie)

    # the session speaks

    def _show_movie(self, movie: Movie | None) -> None:
        self._filling = True
        if movie is not None and self.layers.currentData() != movie.key:
            self.layers.setCurrentIndex(max(self.layers.findData(movie.key), 0))
        if movie is not None:
            layer = self._find(movie.key)
            if layer is not None and self.axes.currentData() != movie.axes:
                if self.axes.findData(movie.axes) < 0:
                    self.axes.clear()
                    self.axes.addItem(_describe(movie.axes, layer.data.shape), movie.axes)
                self.axes.setCurrentIndex(self.axes.findData(movie.axes))
            if layer is not None:
                channels = channels_of(layer, movie.axes)
                if self.channel.count() != len(channels):
                    self.channel.clear()
                    for channel in channels:
                        self.channel.addItem("brightness" if channel == "luminance" else f"channel {channel}", channel)
                self.channel.setCurrentIndex(max(self.channel.findData(movie.channel), 0))
                self.channel_row.setVisible(bool(channels))
        self._filling = False
        say(self.about, "" if movie is None else _summary(movie))
        self.about.setToolTip("" if movie is None or movie.path is None else movie.path)
        self.frames_row.setVisible(movie is not None)
        self._show_frames()

    def _show_frames(self, _choices: object = None) -> None:
        movie = self._session.movie
        if movie is None:
            return
        last = len(movie.stack) - 1
        start, stop = self._session.choices.frames or (0, last + 1)
        for box, value in ((self.start, start), (self.stop, stop - 1)):
            box.blockSignals(True)
            box.setRange(0, last)
            box.setValue(value)
            box.blockSignals(False)

    def _on_frames(self) -> None:
        if self._session.movie is None:
            return
        start, stop = self.start.value(), self.stop.value()
        if start > stop:  # the box that was not touched follows
            start = stop = self.sender().value()
        self._session.change(frames=(start, stop + 1), merge="frames")

    # files

    def _open_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a movie", "", "Movies (*.tif *.tiff *.ome.tif *.npy);;All files (*)"
        )
        self.open_path(path)

    def _open_folder(self) -> None:
        self.open_path(QFileDialog.getExistingDirectory(self, "Open a folder of images or an OME-Zarr"))

    def open_path(self, path: str) -> None:
        """Open a file or folder as layers and choose the first of them."""
        if not path:
            return
        try:
            added = self._viewer.open(path, plugin="stackalign")
        except Exception as error:  # npe2 wraps what a reader raises in errors of its own
            show_error("Opening the movie", root_cause(error), self.window())
            return
        movies = [layer for layer in added if is_movie(layer)]
        if movies:
            QTimer.singleShot(0, partial(self._choose, movies[0].unique_id))

    def _choose(self, key: str) -> None:
        self.refresh(prefer=key)
        self.layers.setCurrentIndex(max(self.layers.findData(key), 0))

    def close_section(self) -> None:
        """Let go of viewer and session."""
        self._session.events.movie.disconnect(self._show_movie, missing_ok=True)
        self._session.events.choices.disconnect(self._show_frames, missing_ok=True)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._on_layers)
        for layer in self._watched:
            layer.events.name.disconnect(self._on_layers)


def _describe(axes: str, shape: tuple[int, ...]) -> str:
    parts = [f"{n} {_MEANING[a]}" for a, n in zip(axes, shape, strict=False) if a in "tzc"]
    return " × ".join(parts) + f" ({axes.replace('s', '')})"


def _summary(movie: Movie) -> str:
    stack = movie.stack
    size = " × ".join(map(str, stack.shape))
    letters = movie.axes.replace("s", "") or stack.axes
    lines = [f"{size} {stack.dtype} · time: axis {letters.index('t')}"]
    scale = []
    if stack.pixel_size is not None:
        sizes = stack.pixel_size[-2:]
        equal = abs(sizes[0] - sizes[1]) <= 1e-6 * max(sizes)
        scale.append((f"{sizes[1]:.4g}" if equal else f"{sizes[0]:.4g} × {sizes[1]:.4g}") + f" {stack.unit}/px")
    else:
        scale.append("pixel size not known")
    if stack.interval is not None:
        scale.append(f"{stack.interval:.4g} {stack.interval_unit} per frame")
    lines.append(" · ".join(scale))
    if stack.missing:
        lines.append(f"{len(stack.missing)} frames cannot be read")
    return "\n".join(lines)


def root_cause(error: BaseException) -> BaseException:
    """Return the error of a chain that says most to a user: ours, else the one at the bottom."""
    while error.__cause__ is not None and not isinstance(error, StackReadError | ChannelChoiceError):
        error = error.__cause__
    return error
