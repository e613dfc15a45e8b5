"""What a run leaves behind: the recipe, the script, the aligned stack, the files. No Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path

    from stackalign.config import AlignmentConfig
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work
    from stackalign.pipeline import RunResult
    from stackalign.runs import Choices, Movie, Run

    WriteReport = Callable[[Path, RunResult, AlignmentConfig], None]


def config_of(movie: Movie, choices: Choices) -> AlignmentConfig:
    """Return the recipe that repeats a run.

    A movie that is only in memory has its name as the path: the recipe says what was done, and can be run once the
    movie is saved.
    """
    from stackalign.config import AlignmentConfig, InputSpec

    return AlignmentConfig(
        input=InputSpec(
            path=movie.path or movie.name,
            axes=movie.file_axes,
            channel=movie.file_channel,
            frames=choices.frames,
        ),
        reference=choices.reference,
        anchor=choices.anchor,
        preprocess=choices.preprocess,
        registrar=choices.registrar,
        warp=choices.warp,
        seed=choices.seed,
    )


def choices_of(config: AlignmentConfig) -> Choices:
    """Return the choices in a recipe."""
    from stackalign.runs import Choices

    return Choices(
        registrar=config.registrar,
        reference=config.reference,
        anchor=config.anchor,
        frames=config.input.frames,
        preprocess=config.preprocess,
        warp=config.warp,
        seed=config.seed,
    )


def script_of(movie: Movie, choices: Choices) -> str:
    """Return a Python script that does the same as a run and its saving."""
    arguments = [repr(movie.path or f"{movie.name}.tif")]
    arguments += [
        f"{name}={value!r}"
        for name, value in (("axes", movie.file_axes), ("channel", movie.file_channel))
        if value is not None
    ]
    fit = ["stack", _call(choices.registrar)]
    fit += [
        f"{name}={value!r}"
        for name, value in (("reference", choices.reference), ("anchor", choices.anchor))
        if value is not None
    ]
    if _changed(choices.preprocess):
        fit.append(f"preprocess={_call(choices.preprocess)}")
    warp = ["stack", "result.transforms", *(f"{k}={v!r}" for k, v in _changed(choices.warp).items())]
    lines = ["import stackalign as sa", ""]
    if movie.path is None:
        lines.append("# the movie was only in memory: save it under this name first")
    lines.append(f"stack = sa.read_stack({', '.join(arguments)})")
    if choices.frames is not None:
        start, stop = choices.frames
        lines.append(f"stack = stack.selected(slice({start}, {stop}))")
    lines += [
        f"result = sa.register({', '.join(fit)})",
        f"fixed = sa.warp({', '.join(warp)})",
        'sa.write_stack("aligned.tif", fixed)',
        'sa.save_transforms("transforms.json", result.transforms, result.provenance)',
        "print(sa.measure(stack, result.transforms).sentence)",
    ]
    return "\n".join(lines) + "\n"


def _changed(record: BaseModel) -> dict[str, Any]:
    """Return the fields that differ from their defaults; ``method`` is the class itself."""
    return {
        name: getattr(record, name)
        for name, info in type(record).model_fields.items()
        if name != "method" and getattr(record, name) != info.get_default(call_default_factory=True)
    }


def _call(record: BaseModel) -> str:
    words = ", ".join(f"{name}={_literal(value)}" for name, value in _changed(record).items())
    return f"sa.{type(record).__name__}({words})"


def _literal(value: Any) -> str:
    """Return an expression; nested records as their calls, enumerations as their values."""
    if isinstance(value, BaseModel):
        return _call(value)
    if isinstance(value, tuple | list):
        inner = ", ".join(_literal(v) for v in value)
        return f"({inner}{',' if len(value) == 1 else ''})"
    return repr(getattr(value, "value", value))


def aligned(run: Run, stack: ImageStack | None = None, *, order: int | None = None) -> ImageStack:
    """Return the frames of a run's movie, or of another channel of it, aligned lazily.

    Parameters
    ----------
    run : Run
        Whose transforms and resampling are used.
    stack : ImageStack, optional
        Another stack of the same frames, whole; the run's movie if left out.
    order : int, optional
        Order of the interpolation; that of the run if left out.

    Raises
    ------
    ValueError
        If the other stack has another number of frames.
    """
    from stackalign.core.warping.warp import warp

    source = stack if stack is not None else run.movie.stack
    if len(source) != len(run.movie.stack):
        raise ValueError(
            f"{source.name or 'this stack'} has {len(source)} frames, the movie has {len(run.movie.stack)}: the same"
            " transforms cannot apply"
        )
    count = len(run.registration)
    if (run.first, count) != (0, len(source)):
        source = source.selected(slice(run.first, run.first + count))
    options = run.choices.warp
    spline = options.order if order is None else order
    return warp(source, run.registration.transforms, order=spline, fill=options.fill, crop=options.crop)


@dataclass(frozen=True, slots=True)
class Saved:
    """What saving wrote."""

    path: Path

    @property
    def sentence(self) -> str:
        """For a user."""
        return f"Saved to {self.path}."


def save_movie_work(run: Run, path: str | PathLike[str], others: tuple[ImageStack, ...] = ()) -> Work[Saved]:
    """Write the aligned movie, with other channels of it that move alike as further channels, to one file."""
    from stackalign.io.write import write_stack_work

    stacks = [aligned(run), *(aligned(run, stack) for stack in others)]
    return Saved((yield from write_stack_work(path, stacks)))


def save_transforms_as(run: Run, path: str | PathLike[str]) -> Saved:
    """Write the transforms alone: ``.json``, ``.csv`` or ``.npy``."""
    from stackalign.io.transforms import save_transforms

    return Saved(save_transforms(path, run.registration.transforms, run.registration.provenance))


def lazy_array(stack: ImageStack) -> Any:
    """Return a stack as a dask array of one frame a chunk; missing frames read as NaN or zero."""
    import dask.array as da

    if isinstance(stack.frames, da.Array) and not stack.missing:
        return stack.frames
    return da.from_array(
        _ByFrame(stack), chunks=(1, *stack.frame_shape), name=False, asarray=False, lock=False, inline_array=True
    )


class _ByFrame:
    """A stack that can be sliced, for dask."""

    def __init__(self, stack: ImageStack) -> None:
        self.stack = stack
        self.shape, self.dtype, self.ndim = stack.shape, stack.dtype, len(stack.shape)

    def __getitem__(self, index: Any) -> Any:
        import numpy as np

        first, *rest = index if isinstance(index, tuple) else (index,)
        frames = range(len(self.stack))[first]
        if isinstance(frames, int):
            return self.stack[frames][tuple(rest)]
        return np.stack([self.stack[t][tuple(rest)] for t in frames])


def aligned_like(run: Run, array: Any, axes: str, *, order: int | None = None) -> Any:
    """Return an array of any order of axes aligned, as a lazy dask array with the same order of axes.

    Parameters
    ----------
    run : Run
        Whose transforms are used.
    array : array-like
        Holds the run's movie, or something of as many frames and the same size.
    axes : str
        A letter for each axis of ``array``: t, z, c, y, x, s.
    order : int, optional
        Order of the interpolation; that of the run if left out (0 for labels).

    Raises
    ------
    ValueError
        If the array's frames differ in number or shape from the movie's.
    """
    import dask.array as da

    from stackalign.io.read import read_stack

    split = next((a for a in "cs" if a in axes), "")
    places: list[int | None] = list(range(array.shape[axes.index(split)])) if split else [None]
    pieces = []
    for place in places:
        if place is None:
            part, letters = array, axes
        else:
            part, letters = array[(slice(None),) * axes.index(split) + (place,)], axes.replace(split, "")
        stack = read_stack(part, axes=letters)
        if stack.frame_shape != run.movie.stack.frame_shape:
            raise ValueError(
                f"its frames are {stack.frame_shape}, those of the movie {run.movie.stack.frame_shape}: the same"
                " transforms cannot apply"
            )
        fixed = lazy_array(aligned(run, stack, order=order))
        standard = "tzyx" if "z" in letters else "tyx"
        pieces.append(fixed.transpose([standard.index(a) for a in letters]))
    return da.stack(pieces, axis=axes.index(split)) if split else pieces[0]


def origin_of(run: Run) -> tuple[int, ...]:
    """Return the pixel of the movie's frame that the first pixel of the aligned frames lies on (moved by cropping)."""
    from stackalign.core.warping.warp import output_box

    origin, _ = output_box(run.movie.stack.frame_shape, run.registration.transforms, run.choices.warp.crop)
    return tuple(int(start) for start in origin)


def result_work(run: Run) -> Work[RunResult]:
    """Return a run as the pipeline returns it, measured if that was not done yet."""
    from stackalign.core.quality import measure_work
    from stackalign.pipeline import RunResult

    stack = run.stack
    quality = run.quality
    if quality is None:
        quality = yield from measure_work(stack, run.registration.transforms)
    return RunResult(
        registration=run.registration,
        quality=quality,
        aligned=aligned(run),
        stack=stack,
        folder=None,
        seconds=run.seconds,
    )


def report_work(run: Run, path: Path, write_report: WriteReport) -> Work[Saved]:
    """Write the report of a run to one HTML file."""
    yield Progress(0, 2, "Measuring before and after")
    result = yield from result_work(run)
    yield Progress(1, 2, "Drawing the report")
    write_report(path, result, config_of(run.movie, run.choices))
    return Saved(path)


def save_folder_work(
    run: Run, folder: Path, write_report: WriteReport, others: tuple[ImageStack, ...] = ()
) -> Work[Saved]:
    """Write everything that the command line writes into a folder; files of an earlier run there are replaced.

    Parameters
    ----------
    run : Run
        The result.
    folder : Path
        Made if it is not there.
    write_report : callable
        From above this module.
    others : tuple of ImageStack
        Further channels that move alike.
    """
    from stackalign.config import save_recipe
    from stackalign.io.run_folder import RunFolder
    from stackalign.io.write import write_stack_work

    config = config_of(run.movie, run.choices)
    result = yield from result_work(run)
    files = RunFolder.create(folder)
    stacks = [result.aligned, *(aligned(run, stack) for stack in others)]
    yield from write_stack_work(files.aligned, stacks)
    files.write_registration(run.registration, result.quality.to_frame())
    config = config.model_copy(update={"output": config.output.model_copy(update={"folder": str(files.path)})})
    save_recipe(files.recipe, config)
    yield Progress(0, 1, "Drawing the report")
    write_report(files.report, replace(result, folder=files), config)
    files.log.write_text(f"{run.sentence}\n", encoding="utf-8")
    return Saved(files.path)
