"""What can go wrong with a user's files, each in one sentence that names the file and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class StackReadError(OSError):
    """A file or folder that holds no stack that can be read."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # without the number that OSError puts in front


class StackWriteError(OSError):
    """A file that could not be written; what stood there before is untouched."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # without the number that OSError puts in front


class TransformsReadError(ValueError):
    """A file that holds no series of transforms."""


class TableReadError(ValueError):
    """A file that holds no table, or not the columns asked for."""


class PicksReadError(ValueError):
    """A file that holds no picked particles."""


class ImageSetChoiceError(PicksReadError):
    """A file holds the particles of several image sets, and none or none of them was chosen.

    Attributes
    ----------
    choices : tuple of str
        What ``image_set=`` may be for this file.
    """

    def __init__(self, message: str, choices: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.choices = tuple(choices)


class AmbiguousAxesError(ValueError):
    """A file does not say what its axes are.

    Attributes
    ----------
    choices : tuple of str
        What ``axes=`` may be for this file, the likeliest first.
    """

    def __init__(self, message: str, choices: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.choices = tuple(choices)


class ChannelChoiceError(ValueError):
    """A file holds several channels, or colours, and none or none of them was chosen.

    Attributes
    ----------
    choices : tuple of int or str
        What ``channel=`` may be for this file.
    """

    def __init__(self, message: str, choices: Sequence[int | str] = ()) -> None:
        super().__init__(message)
        self.choices = tuple(choices)
