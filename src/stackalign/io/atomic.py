"""Write files beside their target and rename them when whole: a target is the old file or the new one, never half."""

from __future__ import annotations

import errno
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stackalign.io.errors import StackWriteError
from stackalign.io.zarr import is_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(target: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """Yield the path to write to; on leaving, rename it to ``target``, or delete it if anything went wrong.

    Parameters
    ----------
    target : path
        File or folder that is to stand in the end. Its parent must exist.
    needed : int
        Bytes that will be written, if known: refused at once where the disk has less.

    Yields
    ------
    Path
        ``<target>.part`` beside the target; the caller makes a file or a folder of it.

    Raises
    ------
    StackWriteError
        If the folder is missing or not writable, the target is a folder that is no zarr, or the disk is full: the
        sentence names the file, the space needed and the space free. The old target is as it was.
    """
    path = Path(target)
    if path.is_symlink():  # the link stays, what it leads to is replaced
        path = path.resolve()
    parent = path.parent
    if not parent.is_dir():
        raise StackWriteError(f"cannot write {path}: there is no folder {parent}")
    if path.is_dir() and not is_zarr(path):  # never replace a folder of a user's other files
        raise StackWriteError(errno.EISDIR, f"cannot write {path}: it is a folder; choose another name")
    part = path.with_name(path.name + ".part")
    if needed > (free := free_bytes(parent)):
        raise StackWriteError(errno.ENOSPC, _full(path, needed, free))
    discard(part)  # what a crash may have left
    try:
        yield part
        _put_in_place(part, path)
    except OSError as error:
        free = free_bytes(parent)  # before the cleaning up, which frees what this attempt took
        written = _size(part)
        discard(part)
        if isinstance(error, StackWriteError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or _short_write(error):
            raise StackWriteError(errno.ENOSPC, _full(path, needed, free + written)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "the disk is read-only" if error.errno == errno.EROFS else f"{parent} is not writable"
            raise StackWriteError(error.errno, f"cannot write {path}: {reason}; choose another folder") from error
        if _concerns(error, part):
            raise StackWriteError(error.errno, f"cannot write {path}: {error.strerror}") from error
        raise
    except BaseException:
        discard(part)
        raise


def free_bytes(folder: Path) -> int:
    """Return the bytes that may still be written to the disk of ``folder``."""
    return shutil.disk_usage(folder).free


def discard(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # the folder may have become unwritable: the error that led here is the one to report
            return


def _put_in_place(part: Path, path: Path) -> None:
    if part.is_dir() or path.is_dir():  # a folder cannot be renamed over a full one: swap them
        old = path.with_name(path.name + ".old")
        discard(old)
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        discard(old)
        return
    if path.exists():
        shutil.copymode(path, part)
    part.replace(path)


def _full(path: Path, needed: int, free: int) -> str:
    need = f"needs {readable(needed)}, " if needed else ""
    return f"cannot write {path}: the disk is full ({need}{readable(free)} free); make room or choose another disk"


def _short_write(error: OSError) -> bool:
    """Tell whether numpy's ``tofile`` wrote less than asked for: it drops the system's reason, a full disk."""
    return error.errno is None and re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None


def _concerns(error: OSError, part: Path) -> bool:
    """Tell whether the error names the file being written, rather than one being read."""
    return error.filename is not None and str(error.filename).startswith(str(part))


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        return path.stat().st_size
    except OSError:
        return 0


def readable(count: float) -> str:
    """Return a number of bytes as people read it, with decimal prefixes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
