"""What the names of files count: natural order, gaps, and the axes of names such as ``run_t001_z02_ch1.tif``."""

from __future__ import annotations

import re
from math import prod
from typing import NamedTuple

import numpy as np

DIGITS = re.compile(r"(\d+)")
_WORD = re.compile(r"(?:^|[^a-z])([a-z]+)[-_ .]?$")
_MEANING = {
    **dict.fromkeys(("t", "time", "timepoint", "tp", "frame"), "t"),
    **dict.fromkeys(("z", "slice", "plane"), "z"),
    **dict.fromkeys(("c", "ch", "channel", "w", "wavelength"), "c"),
}


class Grid(NamedTuple):
    """Files whose names count along several axes.

    Attributes
    ----------
    axes : str
        Letter of each axis, in the order t, z, c.
    shape : tuple of int
        Places along each axis.
    order : tuple of int
        For each place of the grid, the last axis fastest, the number of its name; -1 where there is none.
    channels : tuple of str
        What the names call the channels ("ch1"); empty without a channel axis.
    """

    axes: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    channels: tuple[str, ...]

    def place(self, number: int) -> str:
        """Return a place in words."""
        index = np.unravel_index(number, self.shape)
        return ", ".join(f"{a} {int(k)}" for a, k in zip(self.axes, index, strict=True))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts 2 before 10; names that differ in leading zeros or capitals keep a fixed order."""
    parts = [part for part in DIGITS.split(name) if part]
    return [(0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in parts] + [(2, 0, name)]


def varying_numbers(names: list[str]) -> dict[int, list[int]]:
    """Return the numbers that vary, by place in the split name; empty if the names differ in more than numbers."""
    split = [DIGITS.split(name) for name in names]
    if len({tuple(parts[::2]) for parts in split}) != 1:
        return {}
    columns = {k: [int(parts[k]) for parts in split] for k in range(1, len(split[0]), 2)}
    return {k: column for k, column in columns.items() if len(set(column)) > 1}


def name_grid(names: list[str]) -> Grid | None:
    """Return the axes that the names count along; None if they count in one place, or do not say along what."""
    varying = varying_numbers(names)
    parts = DIGITS.split(names[0])
    letters: dict[str, int] = {}
    for k in varying:
        word = _WORD.search(parts[k - 1].lower())
        letters[_MEANING.get(word[1], "") if word else ""] = k
    if len(letters) < 2 or len(letters) < len(varying) or "" in letters:
        return None
    axes = "".join(a for a in "tzc" if a in letters)
    columns = [varying[letters[a]] for a in axes]
    levels = [sorted(set(column)) for column in columns]
    shape = tuple(map(len, levels))
    order = np.full(shape, -1)
    for number, place in enumerate(zip(*columns, strict=True)):
        order[tuple(level.index(n) for level, n in zip(levels, place, strict=True))] = number
    there = int((order >= 0).sum())
    if there < len(names) or 2 * there < prod(shape):  # a number twice there, or hardly a grid
        return None
    channels: tuple[str, ...] = ()
    if "c" in letters:
        word = _WORD.search(parts[letters["c"] - 1].lower())
        channels = tuple(f"{word[1] if word else ''}{n}" for n in levels[-1])
    return Grid(axes, shape, tuple(order.ravel().tolist()), channels)


def missing_numbers(names: list[str]) -> list[int]:
    """Return the numbers missing in the one place where otherwise equal names count up."""
    varying = list(varying_numbers(names).values())
    if len(varying) != 1:
        return []
    there = sorted(set(varying[0]))
    steps = np.diff(there)
    step = int(np.gcd.reduce(steps))  # every tenth one, where that is the rule
    gaps = int((steps // step - 1).sum())
    if gaps > len(there):  # time stamps rather than a count
        return []
    present = set(there)
    return [n for n in range(there[0], there[-1], step) if n not in present]
