"""The frame that the viewer shows, read in a thread as tracking would read it, so that fits can follow the mouse."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from stackalign.picking import load_frame
from stackalign.widgets._frame_reader import LatestOnly

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.session import AlignmentSession
    from stackalign.widgets._preview import FrameCursor


class SeenFrame(QObject):
    """Holds the image of the frame on show once it has been read.

    Parameters
    ----------
    session : AlignmentSession
        Its movie is read.
    cursor : FrameCursor
        Says which frame is on show.

    Signals
    -------
    arrived()
        The image is there.
    complained(str)
        Why there is none, or what is odd about it.
    """

    arrived = Signal()
    complained = Signal(str)

    def __init__(self, session: AlignmentSession, cursor: FrameCursor, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._cursor = cursor
        self._image: NDArray[Any] | None = None
        self._of: tuple[Any, int] | None = None
        self._reader = LatestOnly(self)
        self._reader.done.connect(self._on_read)

    @property
    def ready(self) -> bool:
        """Whether the frame on show has been read."""
        return self._image is not None and self._of == (self._session.movie, self._cursor.frame)

    @property
    def image(self) -> NDArray[Any] | None:
        """The image of the frame on show; None as long as it has not been read."""
        return self._image if self.ready else None

    def read(self) -> None:
        """Read the frame on show, unless it is there already."""
        movie = self._session.movie
        if movie is None:
            self._image = self._of = None
            return
        tag = (movie, self._cursor.frame)
        if self._of != tag:
            registrar = self._session.particles.registrar
            self._reader.ask(tag, partial(load_frame, movie.stack, self._cursor.frame, registrar))

    def close(self) -> None:
        """Say nothing more."""
        self._reader.close()

    def _on_read(self, tag: Any, result: Any) -> None:
        if tag != (self._session.movie, self._cursor.frame):
            self.read()
            return
        if isinstance(result, Exception):
            self._image = self._of = None
            self.complained.emit(f"Frame {tag[1]} cannot be read: {result}")
            return
        image, why = result
        self._image, self._of = image, tag
        if why:
            self.complained.emit(f"Frame {tag[1]} is {why}")
        self.arrived.emit()
