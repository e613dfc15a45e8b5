"""Figures of a result for files: motion, quality, mean images, worst frames. Matplotlib without pyplot or a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stackalign.core.geometry import centre

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from stackalign.core.quality import Quality
    from stackalign.core.registration import Registration
    from stackalign.core.stack import ImageStack

# Okabe and Ito's palette: told apart with every kind of colour vision, and against a light or a dark page
AXIS_COLOURS = {"y": "#0072B2", "x": "#E69F00", "z": "#009E73"}
BEFORE, AFTER, FLAG, ANGLE = "#999999", "#0072B2", "#D55E00", "#CC79A7"
LONGEST = 480  # pixels of a mean image's longer side in a figure: more cannot be seen and swells the file
SMALL = 240  # the same of one frame among several
MANY = 2000  # frames from which points would hide the line
_MICRONS = {"um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"}


def motion_figure(
    registration: Registration,
    pixel_size: Sequence[float] | None = None,
    unit: str = "µm",
    interval: float | None = None,
    interval_unit: str = "s",
    frame_shape: Sequence[int] | None = None,
    *,
    ink: str = "black",
) -> Figure:
    """Plot how far the scene moved (drift, reference -> moving) against the frame.

    Parameters
    ----------
    registration : Registration
        The result; bands show its standard errors where they are known, crosses its flagged frames.
    pixel_size : sequence of float, optional
        Size of a pixel along each axis, in ``unit``: a second axis on the right where all are equal.
    unit, interval_unit : str
        Units of pixel size and interval.
    interval : float, optional
        Time from frame to frame: a second axis above.
    frame_shape : sequence of int, optional
        The drift is that of the frame's centre; of the pixel (0, 0) if left out. Translations do not need it.
    ink : str
        Colour of text, axes and ticks.

    Returns
    -------
    Figure
        One panel for the drift, a second one for the rotation in degrees if there is any.
    """
    series = registration.transforms
    drift, angle = drift_of(registration, frame_shape)
    error = np.asarray(registration.quality.error, float)[:, : series.ndim]
    flagged = registration.quality.flagged | ~series.valid
    turns = bool(np.abs(angle).max(initial=0) > 1e-6)
    frames = np.arange(len(series))
    figure = new_figure((7.6, 4.6 if turns else 3.2))
    panels = figure.subplots(1 + turns, 1, sharex=True, squeeze=False, height_ratios=[2, 1][: 1 + turns])[:, 0]
    top = panels[0]
    for i, axis in enumerate("zyx"[-series.ndim :]):
        _line(top, frames, drift[:, i], AXIS_COLOURS[axis], f"{axis}")
        if error.shape[1] > i and np.isfinite(error[:, i]).any():
            low, high = drift[:, i] - error[:, i], drift[:, i] + error[:, i]
            top.fill_between(
                frames, low, high, color=AXIS_COLOURS[axis], alpha=0.25, lw=0, rasterized=len(frames) > MANY
            )
    if flagged.any():
        marks = np.repeat(frames[flagged], series.ndim)
        top.plot(marks, drift[flagged].ravel(), "x", color=FLAG, ms=6, mew=1.5, label="flagged")
    top.set_ylabel("drift (px)")
    figure.legend(*top.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside lower center", labelcolor=ink)
    if turns:
        _line(panels[1], frames, angle, ANGLE, "rotation")
        panels[1].set_ylabel("rotation (deg)")
    panels[-1].set_xlabel("frame")
    for panel in panels:
        _dress(panel, ink)
    _physical(top, pixel_size, unit, interval, interval_unit, ink)
    return figure


def quality_figure(quality: Quality, reasons: Sequence[str] = (), *, ink: str = "black") -> Figure:
    """Plot each frame's correlation with the mean image and its residual, before and after, on the same region.

    Parameters
    ----------
    quality : Quality
        What was measured.
    reasons : sequence of str, optional
        One a frame, empty for a good one: flagged frames get a cross.
    ink : str
        Colour of text, axes and ticks.
    """
    figure = new_figure((7.6, 4.2))
    panels = figure.subplots(2, 1, sharex=True)
    rows = (
        ("correlation with\nthe mean image", quality.frame_correlation_before, quality.frame_correlation_after),
        ("rms difference\n(intensity)", quality.frame_residual_before, quality.frame_residual_after),
    )
    flags = np.flatnonzero([bool(reason) for reason in reasons])
    for panel, (label, before, after) in zip(panels, rows, strict=True):
        frames = np.arange(len(after))
        _line(panel, frames, np.asarray(before, float), BEFORE, "before: doing nothing")
        _line(panel, frames, np.asarray(after, float), AFTER, "after")
        if len(flags):
            panel.plot(flags, np.asarray(after, float)[flags], "x", color=FLAG, ms=6, mew=1.5, label="flagged")
        panel.set_ylabel(label)
        _dress(panel, ink)
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, frameon=False, ncols=3, loc="outside lower center", labelcolor=ink)
    panels[-1].set_xlabel("frame")
    return figure


def mean_images_figure(quality: Quality, *, ink: str = "black") -> Figure:
    """Show the mean image before, after, and their difference; volumes as their mean along z.

    Both means have one grey scale, so that a sharper one looks sharper; the difference is centred on zero.
    """
    before, after = _plane(quality.mean_before), _plane(quality.mean_after)
    low, high = _limits(np.stack([before, after]))
    change = after - before
    span = float(np.nanpercentile(np.abs(change), 99.5)) if np.isfinite(change).any() else 0.0
    span = span or 1.0
    ratio = before.shape[0] / before.shape[1]
    figure = new_figure((9.0, float(np.clip(9.0 / 3 * ratio, 0.8, 6.0)) + 0.7))
    panels = figure.subplots(1, 3)
    looks: list[tuple[str, NDArray[Any], dict[str, Any]]] = [
        ("mean before", before, {"cmap": "gray", "vmin": low, "vmax": high}),
        ("mean after", after, {"cmap": "gray", "vmin": low, "vmax": high}),
        ("after - before", change, {"cmap": "PuOr", "vmin": -span, "vmax": span}),
    ]
    for panel, (title, image, look) in zip(panels, looks, strict=True):
        shown = panel.imshow(image, interpolation="nearest", **look)
        _picture(panel, title, ink)
        bar = figure.colorbar(shown, ax=panel, orientation="horizontal", pad=0.03, shrink=0.9, aspect=30)
        bar.ax.tick_params(colors=ink, labelsize=7)
        bar.outline.set_visible(False)
    panels[0].set_ylabel("intensity (mean)", color=ink, fontsize=8)
    return figure


def worst_frames(quality: Quality, reasons: Sequence[str], count: int = 4) -> list[int]:
    """Return up to ``count`` frames to look at first: flagged ones, then those of the lowest correlation."""
    after = np.asarray(quality.frame_correlation_after, float)
    key = np.where(np.isfinite(after), after, -2.0)
    bad = np.array([bool(r) for r in reasons], bool) if len(reasons) else np.zeros(len(after), bool)
    order = np.lexsort((np.arange(len(after)), key, ~bad))
    return [int(t) for t in order[:count]]


def frames_figure(
    before: ImageStack, after: ImageStack, frames: Sequence[int], captions: Sequence[str] = (), *, ink: str = "black"
) -> Figure:
    """Show some frames before (upper row) and after (lower row); volumes as their mean along z.

    Parameters
    ----------
    before, after : ImageStack
        The movie and the aligned one.
    frames : sequence of int
        Which ones.
    captions : sequence of str, optional
        One for each, written above it.
    ink : str
        Colour of text.
    """
    if not len(frames):
        raise ValueError("no frame to show")
    rows = [[_plane(stack[t], SMALL) for t in frames] for stack in (before, after)]
    ratio = rows[0][0].shape[0] / rows[0][0].shape[1]
    width = 9.0 / max(len(frames), 3)
    figure = new_figure((width * len(frames), float(np.clip(width * ratio, 0.5, 6.0)) * 2 + 0.5))
    panels = figure.subplots(2, len(frames), squeeze=False)
    for column, t in enumerate(frames):
        low, high = _limits(rows[0][column])
        for row, name in enumerate(("before", "after")):
            panel = panels[row, column]
            panel.imshow(rows[row][column], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            title = (captions[column] if column < len(captions) else f"frame {t}") if row == 0 else ""
            _picture(panel, title, ink)
            if column == 0:
                panel.set_ylabel(name, color=ink, fontsize=9)
    return figure


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 150, format: str | None = None) -> None:
    """Write a figure as PNG, SVG or PDF, by ``format`` or the ending of ``path``, on a white page."""
    figure.patch.set(facecolor="white", alpha=1.0)
    with rc_context({"svg.hashsalt": "stackalign"}):
        figure.savefig(path, dpi=dpi, format=format)


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure, inches, on no page of its own."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    return figure


def _line(panel: Any, x: NDArray[Any], y: NDArray[Any], colour: str, label: str) -> None:
    """Draw a curve that also shows single frames between gaps; a long one as pixels, lest the file swell."""
    few = len(x) <= 60
    panel.plot(
        x, y, "-", color=colour, label=label, lw=1.3, marker="." if few else None, ms=4, rasterized=len(x) > MANY
    )


def _dress(panel: Any, ink: str) -> None:
    panel.patch.set_alpha(0)
    panel.grid(alpha=0.25, lw=0.5, color=ink)
    panel.tick_params(colors=ink, labelsize=8)
    panel.xaxis.label.set_color(ink)
    panel.yaxis.label.set_color(ink)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.ticklabel_format(useOffset=False, axis="y")
    for side, spine in panel.spines.items():
        spine.set_color(ink)
        spine.set_visible(side in ("left", "bottom"))


def _picture(panel: Any, title: str, ink: str) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.patch.set_alpha(0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    if title:
        panel.set_title(title, color=ink, fontsize=9)


def _physical(
    panel: Any, pixel_size: Sequence[float] | None, unit: str, interval: float | None, interval_unit: str, ink: str
) -> None:
    """Add axes in physical units on the right and above."""
    if pixel_size and len({round(float(s), 12) for s in pixel_size}) == 1 and pixel_size[0] > 0:
        size = float(pixel_size[0])
        right = panel.secondary_yaxis("right", functions=(lambda px: px * size, lambda length: length / size))
        right.set_ylabel(f"drift ({unit_of(unit)})", color=ink)
        right.tick_params(colors=ink, labelsize=8)
        right.spines["right"].set_color(ink)
    if interval:
        step = float(interval)
        above = panel.secondary_xaxis("top", functions=(lambda t: t * step, lambda time: time / step))
        above.set_xlabel(f"time ({interval_unit})", color=ink)
        above.tick_params(colors=ink, labelsize=8)
        above.spines["top"].set_color(ink)


def drift_of(
    registration: Registration, frame_shape: Sequence[int] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (T, d) drift of the frame's centre, px, and (T,) rotation of the scene, degrees (in 3-D its size)."""
    series = registration.transforms
    middle = np.zeros(series.ndim) if frame_shape is None else centre(frame_shape)
    back = series.inverse.matrices @ np.append(middle, 1.0)
    drift = back[:, :-1] / back[:, -1:] - middle
    angles = np.degrees(series.angles)
    return drift, -angles if series.ndim == 2 else np.linalg.norm(angles, axis=1)


def unit_of(unit: str) -> str:
    """Return a unit of length as it is written on an axis."""
    return "µm" if unit.lower() in _MICRONS else unit


def _plane(image: Any, longest: int = LONGEST) -> NDArray[np.float64]:
    """Return a plane of at most ``longest`` pixels a side, by averaging blocks, and along z for volumes."""
    plane = np.asarray(image, np.float64)
    if plane.ndim == 3:
        counted = np.isfinite(plane).sum(0)
        plane = np.where(counted > 0, np.nansum(plane, axis=0) / np.maximum(counted, 1), np.nan)
    step = -(-max(plane.shape) // longest)
    if step == 1:
        return plane
    height, width = (n // step * step or n for n in plane.shape)
    steps = [min(step, n) for n in (height, width)]
    blocks = plane[:height, :width].reshape(height // steps[0], steps[0], width // steps[1], steps[1])
    return np.asarray(blocks.mean((1, 3)))


def _limits(image: NDArray[np.float64]) -> tuple[float, float]:
    """Return a grey scale that a few hot pixels do not spoil."""
    known = image[np.isfinite(image)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, (0.5, 99.7)))
    return (low, high) if high > low else (low, low + 1.0)
