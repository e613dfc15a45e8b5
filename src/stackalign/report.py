"""The report of a run: one HTML file that needs nothing else, the verdict first, the proof below."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import stackalign
from stackalign.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from stackalign.config import AlignmentConfig
    from stackalign.core.quality import Quality
    from stackalign.pipeline import RunResult

_INK = "#0a0b0c"  # no colour of a figure: where it stands, the page puts its own
_FEW = 0.0005  # a correlation that changes by less is the same in the digits that are shown
TOLD_ELSEWHERE = ("parameters", "preprocess", "times", "frames", "frame_shape", "seed")
MANY_REASONS = 40  # flagged frames that are listed; the rest is in quality.csv


def write_report(path: Path, result: RunResult, config: AlignmentConfig) -> None:
    """Write the report of a run.

    Parameters
    ----------
    path : Path
        The HTML file; written beside it and renamed when whole.
    result : RunResult
        What the run gave.
    config : AlignmentConfig
        What it was asked for.

    Raises
    ------
    StackWriteError
        If the file cannot be written.
    """
    text = render(result, config)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def render(result: RunResult, config: AlignmentConfig) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stackalign", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(**_content(result, config))


def verdict(quality: Quality) -> tuple[str, str]:
    """Return what the numbers say, as a word for the page's colour (better, same, worse) and as words for a reader."""
    change = float(quality.correlation_after) - float(quality.correlation_before)
    if not np.isfinite(change):
        return "same", "Not measured"
    if abs(change) < _FEW:
        return "same", "As steady as before"
    return ("better", "Steadier than before") if change > 0 else ("worse", "Worse than doing nothing")


def _content(result: RunResult, config: AlignmentConfig) -> dict[str, Any]:
    registration, quality, stack = result.registration, result.quality, result.stack
    reasons = registration.quality.reasons
    kind, words = verdict(quality)
    return {
        "title": stack.name or Path(config.input.path).name,
        "kind": kind,
        "verdict": words,
        "sentence": result.sentence,
        "before": f"{quality.correlation_before:.3f}",
        "after": f"{quality.correlation_after:.3f}",
        "summary": [(name, _number(b), _number(a)) for name, (b, a) in quality.summary.items()],
        "region": _region(quality, stack.frame_shape),
        "motion_facts": _motion_facts(result),
        "flagged": [(t, reason) for t, reason in enumerate(reasons) if reason][:MANY_REASONS],
        "flagged_count": sum(map(bool, reasons)),
        "frames": len(registration),
        "figures": _figures(result),
        "input": _input(result, config),
        "parameters": list(_rows(config.model_dump(mode="json"))),
        "provenance": list(_rows(dict(registration.provenance), skip=TOLD_ELSEWHERE)),
        "started": registration.provenance.get("times", {}).get("started", ""),
        "seconds": f"{result.seconds:.3g}",
        "command": shlex.join(["stackalign", "run", str(_recipe(result, config)), "--overwrite"]),
        "align_command": align_command(config),
        "version": stackalign.__version__,
    }


def align_command(config: AlignmentConfig) -> str:
    """Return the command line that does the same as a recipe."""
    source = config.input
    words = ["stackalign", "align", str(source.path), "-m", str(config.registrar.method)]
    if config.output.folder:
        words += ["-o", str(config.output.folder)]
    for option, value in (("--axes", source.axes), ("--channel", source.channel)):
        if value is not None:
            words += [option, str(value)]
    if source.frames is not None:
        words += ["--frames", f"{source.frames[0]}:{source.frames[1]}"]
    for option, name in (("--reference", "reference"), ("--anchor", "anchor"), ("--seed", "seed")):
        if name in _changed(config):
            words += [option, str(getattr(config, name))]
    for group in ("registrar", "preprocess", "warp", "output"):
        for key, value in _changed(getattr(config, group)).items():
            if (group, key) not in (("registrar", "method"), ("output", "folder")):
                words += ["--set", f"{group}.{key}={_typed(value)}"]
    return shlex.join(words)


def _changed(record: Any) -> dict[str, Any]:
    """Return the fields of a record that differ from their defaults, as plain values."""
    plain = record.model_dump(mode="json")
    fields = type(record).model_fields
    same = {n for n, f in fields.items() if not f.is_required() and f.get_default(call_default_factory=True)
            == getattr(record, n)}  # fmt: skip
    return {name: value for name, value in plain.items() if name not in same}


def _typed(value: Any) -> str:
    """Return a plain value as YAML on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_typed, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_typed(v)}" for k, v in value.items()) + "}"
    return str(value)


def _recipe(result: RunResult, config: AlignmentConfig) -> Path:
    if result.folder is not None:
        return result.folder.recipe
    return Path(config.output.folder or ".") / "recipe.yaml"


def _number(value: float) -> str:
    return "not measured" if not np.isfinite(value) else f"{value:.4g}"


def _region(quality: Quality, frame_shape: tuple[int, ...]) -> str:
    shape = quality.region.shape
    share = float(np.prod(shape)) / float(np.prod(frame_shape))
    return f"{' x '.join(map(str, shape))} px, {share:.0%} of the frame"


def _motion_facts(result: RunResult) -> list[tuple[str, str]]:
    """Return the size of the motion in words, in pixels and in physical units where they are known."""
    from stackalign.plots import drift_of, unit_of

    stack, registration = result.stack, result.registration
    drift, angle = drift_of(registration, stack.frame_shape)
    size, unit = stack.pixel_size, unit_of(stack.unit)
    facts = []
    for i, axis in enumerate("zyx"[-drift.shape[1] :]):
        low, high = float(drift[:, i].min()), float(drift[:, i].max())
        text = f"{low:.2f} to {high:.2f} px"
        if size is not None:
            text += f" ({low * size[i]:.3g} to {high * size[i]:.3g} {unit})"
        facts.append((f"drift along {axis}", text))
    if np.abs(angle).max(initial=0) > 1e-6:
        facts.append(("rotation", f"{angle.min():.3f} to {angle.max():.3f} deg"))
    error = np.asarray(registration.quality.error, float)
    if np.isfinite(error).any():
        facts.append(("standard error, median", f"{np.nanmedian(error):.2g} px"))
    return facts


def _input(result: RunResult, config: AlignmentConfig) -> list[tuple[str, str]]:
    stack = result.stack
    rows = [
        ("file", str(config.input.path)),
        ("frames", f"{len(stack)} of {' x '.join(map(str, stack.frame_shape))} px, {stack.dtype}"),
    ]
    if stack.pixel_size is not None:
        rows.append(("pixel size", f"{' x '.join(f'{s:.6g}' for s in stack.pixel_size)} {stack.unit}"))
    if stack.interval is not None:
        rows.append(("interval", f"{stack.interval:.6g} {stack.interval_unit}"))
    rows += [(f"frame {t} is missing", why) for t, why in list(stack.missing.items())[:MANY_REASONS]]
    return rows


def _figures(result: RunResult) -> dict[str, str]:
    from stackalign import plots

    registration, quality, stack = result.registration, result.quality, result.stack
    reasons = registration.quality.reasons
    shown = plots.worst_frames(quality, reasons)
    scores = np.asarray(quality.frame_correlation_after, float)
    captions = [f"frame {t}" + (f", r = {scores[t]:.3f}" if np.isfinite(scores[t]) else "") for t in shown]
    figures = {
        "motion": plots.motion_figure(
            registration, stack.pixel_size, stack.unit, stack.interval, stack.interval_unit, stack.frame_shape, ink=_INK
        ),
        "quality": plots.quality_figure(quality, reasons, ink=_INK),
        "means": plots.mean_images_figure(quality, ink=_INK),
        "worst": plots.frames_figure(stack, result.aligned, shown, captions, ink=_INK),
    }
    return {name: inline_svg(figure, name) for name, figure in figures.items()}


def inline_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as SVG to stand in a page: its ink is the page's, its names do not meet another figure's."""
    from matplotlib import rc_context

    from stackalign.plots import AFTER

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(AFTER.lower(), "var(--blue)")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    names = re.compile(r'(id="|href="#|url\(#)')
    return names.sub(lambda match: f"{match[1]}{prefix}-", text)


def _rows(tree: dict[str, Any], prefix: str = "", skip: Iterable[str] = ()) -> Iterable[tuple[str, str]]:
    """Yield a tree of plain values as dotted names with their values."""
    for key, value in tree.items():
        if key in skip:
            continue
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _typed(value)
