"""Which axis of a file is which: what its metadata say, what the user says, what is asked for where neither does."""

from __future__ import annotations

from itertools import permutations

from stackalign.io.errors import AmbiguousAxesError

LETTERS = "tzcyxs"
UNKNOWN = "?"
_WORDS = {"t": "time", "z": "z", "c": "channel", "s": "colour", UNKNOWN: "not named"}


def resolved(
    name: str,
    labels: str,
    shape: tuple[int, ...],
    requested: str | None,
    *,
    settled: bool = False,
    joinable: bool = False,
) -> tuple[str, tuple[str, ...]]:
    """Return one letter per axis of a file, and notes on what was taken for granted.

    Parameters
    ----------
    name : str
        The file, for messages.
    labels : str
        One letter per axis: t, z, c, y, x, s (colour samples of a pixel) or "?" where nobody says. No axis of length
        1 but y and x.
    shape : tuple of int
        Length of each axis.
    requested : str, optional
        What the user says: the axes of the file ("tcyx"), or of the stack ("tyx") where the file names its channels.

    settled : bool
        The file itself says that a missing time axis means one moment.

    joinable : bool
        The first axis counts files, whose own pages could also follow each other in time.

    Raises
    ------
    AmbiguousAxesError
        If the file leaves open which axis is time and the user does not say, or what the user says does not fit.
    """
    if requested is not None:
        return _stated(name, labels, shape, requested.strip().lower()), ()
    choices = _choices(labels)
    if not choices or (settled and UNKNOWN not in labels):
        return labels, ()
    if labels.count(UNKNOWN) == 1 and not set(labels) & set("tzc"):
        frames = shape[labels.index(UNKNOWN)]
        return labels.replace(UNKNOWN, "t"), (f"the file does not name its axes: its {frames} pages are read as time",)
    sizes = " x ".join(map(str, shape))
    named = ", ".join(f"{n} {_WORDS[a]}" for a, n in zip(labels, shape, strict=True) if a not in "yxs")
    question = "what is the axis that it does not name?" if "t" in labels else "which axis is time?"
    said = _listed(choices, labels)
    if joinable and UNKNOWN in labels:
        choices.append("t" + labels.lstrip("t" + UNKNOWN))
        said += f' or "{choices[-1]}" (the pages of all files follow each other in time)'
    raise AmbiguousAxesError(
        f"{name}: {question} It is {sizes} ({named}, then the image)."
        f" Say so with axes= (--axes on the command line): {said}",
        choices,
    )


def _choices(labels: str) -> list[str]:
    """Return what the labels leave open: nothing, or the likeliest meanings first."""
    frame = "".join(a for a in labels if a in "yxs")
    leading = labels[: len(labels) - len(frame)]
    if not labels.endswith(frame):  # y and x are not the last ones: only a full statement helps
        leading = "".join(a for a in labels if a not in "yxs")
    if not leading or ("t" in leading and UNKNOWN not in leading):
        return []
    if UNKNOWN in leading:
        free = [a for a in "tzc" if a not in leading]
        found = []
        for letters in permutations(free, leading.count(UNKNOWN)):
            rest = iter(letters)
            option = "".join(next(rest) if a == UNKNOWN else a for a in leading)
            found.append(option)
        return [_merge(labels, option) for option in sorted(found, key=lambda o: ("t" not in o, o.find("t"), "c" in o))]
    # z, c or both are named, time is not
    return [_merge(labels, leading.replace(a, "t")) for a in "zc" if a in leading] + [labels]


def _merge(labels: str, leading: str) -> str:
    rest = iter(leading)
    return "".join(a if a in "yxs" else next(rest) for a in labels)


def _listed(choices: list[str], labels: str) -> str:
    words = []
    for choice in choices:
        if "t" not in choice:
            meaning = "one volume" if "c" not in choice else "one frame, several channels"
            meaning = "one volume, several channels" if set("zc") <= set(choice) else meaning
        else:
            old = labels[choice.index("t")]
            meaning = "" if old in (UNKNOWN, "t") else f"{_WORDS[old]} read as time"
        words.append(f'"{choice}"' + (f" ({meaning})" if meaning else ""))
    return " or ".join(words)


def _stated(name: str, labels: str, shape: tuple[int, ...], requested: str) -> str:
    """Return the user's letters for every axis of the file, checked against it."""
    sizes = " x ".join(map(str, shape))
    if not set(requested) <= set(LETTERS) or len(set(requested)) < len(requested) or not set("yx") <= set(requested):
        raise AmbiguousAxesError(
            f"{name}: axes={requested!r} is not understood: write one letter per axis, each once, out of t (time), z,"
            " c (channel), y, x and s (colour), with y and x among them",
            _choices(labels) or [labels],
        )
    if len(requested) == len(labels):
        return requested
    without = [a for a in labels if a not in "cs"]  # channels that the file names need not be repeated
    if len(without) == len(requested):
        rest = iter(requested)
        return "".join(a if a in "cs" else next(rest) for a in labels)
    if len(requested) == len(labels) + 1 and "t" in requested and "t" not in labels:
        single = requested.replace("t", "", 1)  # a file of one frame, described as the stack that it becomes
        if len(single) == len(labels) and (single == labels or UNKNOWN in labels):
            return single
    raise AmbiguousAxesError(
        f"{name}: axes={requested!r} names {len(requested)} axes, but the file has {len(labels)}: {sizes}",
        _choices(labels) or [labels],
    )
