"""The one way from frames to a result: what the panel, the command line, a script and a recipe all call."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.cluster import WorkerMap, check_client
from stackalign.core.frames.bad_frames import find_bad_frames
from stackalign.core.frames.pixel_repair import find_repair
from stackalign.core.frames.preprocess import Preprocess
from stackalign.core.quality import measure_work
from stackalign.core.references.reference import POLICIES, Reference
from stackalign.core.stack import ImageStack
from stackalign.core.threads import is_spread, spread_over
from stackalign.core.warping.resample import check_options
from stackalign.core.warping.warp import warp
from stackalign.core.work import Progress, drain
from stackalign.io.errors import StackWriteError
from stackalign.io.read import read_channels, read_stack
from stackalign.io.run_folder import RunFolder
from stackalign.io.write import write_stack_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from stackalign.config import AlignmentConfig
    from stackalign.core.quality import Quality
    from stackalign.core.registration import ReferenceLike, Registrar, Registration
    from stackalign.core.work import Work

    WriteReport = Callable[[Path, "RunResult", AlignmentConfig], None]

logger = logging.getLogger(__name__)
_ENDINGS = {"tif": "aligned.tif", "ome.tif": "aligned.ome.tif", "zarr": "aligned.zarr"}
_PARTS = ("low_rank.tif", "sparse.tif")
_SELECTIONS = "script_output/particle_selections.json"


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run gives.

    Attributes
    ----------
    stack : ImageStack
        The input, with the frames that were asked for.
    registration : Registration
        Transforms and quality of each frame.
    quality : Quality
        Before and after on the same pixels.
    aligned : ImageStack
        Lazy.
    folder : RunFolder or None
        The files that were written.
    seconds : float
        Of the whole run.
    """

    stack: ImageStack
    registration: Registration
    quality: Quality
    aligned: ImageStack
    folder: RunFolder | None = None
    seconds: float = field(default=0.0)

    @property
    def sentence(self) -> str:
        """What came out, for a user."""
        count, flagged = len(self.registration), int(self.registration.quality.flagged.sum())
        return (
            f"Aligned {count} frame{'' if count == 1 else 's'}; {flagged or 'none'} flagged; correlation with the mean"
            f" {self.quality.correlation_before:.3f} -> {self.quality.correlation_after:.3f}."
        )


def register(
    stack: ImageStack | ArrayLike,
    registrar: Registrar,
    *,
    reference: ReferenceLike | None = None,
    anchor: int | str | None = None,
    mask: ArrayLike | None = None,
    preprocess: Preprocess | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    client: Any = None,
) -> Registration:
    """Estimate one transform per frame.

    Parameters
    ----------
    stack : ImageStack or array (t, y, x) / (t, z, y, x)
        The frames.
    registrar : Registrar
        The method with its parameters: ``CrossCorrelation()``, ...
    reference : str, int or array, optional
        "mean", "median", "first", "previous", "rolling", "all-pairs", a frame number or an image; the method's default
        if left out.
    anchor : int or "mean", optional
        Frame that becomes the identity; by default the reference frame, else the first valid one; nothing is rebased
        where the reference is an external image.
    mask : array of bool, frame shape, optional
        True where a pixel of the reference counts.
    preprocess : Preprocess, optional
        The region that counts.
    on_progress : callable, optional
        Called with every `Progress`.
    should_stop : callable, optional
        Asked after every step.
    client : dask.distributed.Client, optional
        Its worker processes read and align the frames, with the same result (the extra ``cluster``).

    Returns
    -------
    Registration
        Frames that cannot be aligned are flagged with their reason and interpolated.

    Raises
    ------
    ValueError
        If an argument does not fit the stack.
    WorkCancelled
        If ``should_stop`` said so; its ``partial`` is the registration so far.
    """
    work = register_work(stack, registrar, reference=reference, anchor=anchor, mask=mask, preprocess=preprocess)
    if client is None:
        return drain(work, on_progress, should_stop).unwrap()
    check_client(client)
    with spread_over(WorkerMap(client)):
        return drain(work, on_progress, should_stop).unwrap()


def register_work(
    stack: ImageStack | ArrayLike,
    registrar: Registrar,
    *,
    reference: ReferenceLike | None = None,
    anchor: int | str | None = None,
    mask: ArrayLike | None = None,
    preprocess: Preprocess | None = None,
) -> Work[Registration]:
    """Estimate one transform per frame, as work; parameters as for `register`."""
    begun, started = time.perf_counter(), datetime.now(UTC)
    source = ImageStack.of(stack)
    counted = None if mask is None else np.asarray(mask, bool)
    prepared = preprocess or Preprocess()
    _check(source, reference, anchor, counted)
    region = prepared.mask(source.frame_shape)
    if region is not None:
        counted = region if counted is None else counted & region
    usable = source
    if prepared.bad_frames or is_spread():  # workers keep to themselves what they find: it has to be known before
        named = {int(t) % len(source) for t in (reference, anchor) if isinstance(t, int | np.integer)}
        found = yield from find_bad_frames(source, trusted=named, neighbours=prepared.bad_frames)
        usable = replace(source, rejected={**found, **source.rejected}, checked=True)
    repair = None
    if prepared.despike != "none":
        repair = yield from find_repair(usable, spikes=prepared.despike == "all")
        usable = usable if repair is None else replace(usable.mapped(repair), checked=usable.checked)
    result = yield from registrar.fit(usable, reference=reference, anchor=anchor, mask=counted)
    if repair is not None:
        result = replace(result, details={**result.details, "repaired_pixels": repair.places(source.frame_shape)})
    provenance = _provenance(source, registrar, reference, anchor, prepared, result)
    provenance["times"] = {"started": started.isoformat(timespec="seconds"), "seconds": time.perf_counter() - begun}
    return replace(result, provenance={**provenance, **result.provenance})


def _check(
    stack: ImageStack, reference: ReferenceLike | None, anchor: int | str | None, mask: NDArray[np.bool_] | None
) -> None:
    """Raise ValueError where what a user named does not fit the stack, whatever the method."""
    if reference is not None:
        Reference.of(reference, len(stack), stack.frame_shape)
    if isinstance(anchor, int | np.integer):
        if not -len(stack) <= anchor < len(stack):
            raise ValueError(f"there is no frame {anchor} to anchor: the stack has frames 0 to {len(stack) - 1}")
    elif anchor is not None and anchor != "mean":
        raise ValueError(f"anchor must be a frame number or 'mean', not {anchor!r}")
    if mask is not None and mask.shape != stack.frame_shape:
        raise ValueError(f"the mask is {mask.shape}, the frames are {stack.frame_shape}: they must be alike")
    if mask is not None and not mask.any():
        raise ValueError("the mask leaves no pixel: True marks what counts")


def _provenance(
    stack: ImageStack, registrar: Any, reference: Any, anchor: Any, preprocess: Preprocess, result: Registration
) -> dict[str, Any]:
    from stackalign import __version__

    words = reference if isinstance(reference, str | int | None) else "an external image"
    parameters = registrar.model_dump(mode="json") if hasattr(registrar, "model_dump") else {}
    return {
        "program": f"stackalign {__version__}",
        "method": registrar.method,
        "parameters": parameters,
        "reference": words,
        "anchor": anchor,
        "preprocess": preprocess.model_dump(mode="json"),
        "source": str(stack.metadata.get("source", stack.name)),
        "frames": len(stack),
        "frame_shape": list(stack.frame_shape),
        "rounds": result.details.get("rounds"),
    }


def run(
    config: AlignmentConfig,
    *,
    folder: str | PathLike[str] | None = None,
    overwrite: bool = False,
    write_report: WriteReport | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RunResult:
    """Carry out a recipe; parameters and errors as for `run_work`."""
    if write_report is None:
        write_report = _above("report", "write_report")
    work = run_work(config, folder=folder, overwrite=overwrite, write_report=write_report)
    return drain(work, on_progress, should_stop).unwrap()


def run_work(
    config: AlignmentConfig,
    *,
    folder: str | PathLike[str] | None = None,
    overwrite: bool = False,
    write_report: WriteReport | None = None,
) -> Work[RunResult]:
    """Read, align, measure and write, as work.

    Parameters
    ----------
    config : AlignmentConfig
        The recipe.
    folder : path, optional
        Where the result goes, instead of the recipe's own folder; nothing is written if neither names one.
    overwrite : bool
        Whether files of an earlier run may be replaced.
    write_report : callable, optional
        Writes the report; no report if left out.

    Raises
    ------
    StackReadError, AmbiguousAxesError, ChannelChoiceError
        If the input cannot be read as it stands.
    StackWriteError
        If the folder holds an earlier run, or cannot be written.
    ValueError
        If the recipe does not fit the stack.
    """
    begun = time.perf_counter()
    place = folder if folder is not None else config.output.folder
    target = None if place is None else _folder(place, config, overwrite)
    with _or_nothing(target), _logged(None if target is None else target.log):
        stacks, chosen = _inputs(config)
        stack = stacks[chosen]
        logger.info("read %r", stack)
        check_options(stack, config.warp.order, config.warp.fill)  # now, not after an hour of aligning
        if config.output.script_output and (config.registrar.method != "particles" or stack.ndim != 2):
            raise ValueError("script_output holds particles in 2-D images: choose the method 'particles', or leave it")
        reference = reference_of(config.reference, stack)
        registration = yield from register_work(
            stack, config.registrar, reference=reference, anchor=config.anchor, preprocess=config.preprocess
        )
        registration = replace(registration, provenance={**registration.provenance, "seed": config.seed})
        for t in np.flatnonzero(registration.quality.flagged):
            logger.warning("frame %d is flagged: %s", int(t), registration.quality.reasons[t])
        quality = yield from measure_work(stack, registration.transforms)
        options = config.warp
        aligned = [
            warp(s, registration.transforms, order=options.order, fill=options.fill, crop=options.crop) for s in stacks
        ]
        result = RunResult(stack, registration, quality, aligned[chosen], target, time.perf_counter() - begun)
        if target is not None:
            yield from _written(result, aligned, config, target, write_report)
        result = replace(result, seconds=time.perf_counter() - begun)
        logger.info("%s", result.sentence)
        logger.info("%s", quality.sentence)
        logger.info("finished in %.2f s", result.seconds)
    return result


def _inputs(config: AlignmentConfig) -> tuple[list[ImageStack], int]:
    """Read the channel that is measured, and the others, which share its transforms."""
    spec = config.input
    stack = read_stack(spec.path, axes=spec.axes, channel=spec.channel)
    stacks, chosen = [stack], 0
    if isinstance(spec.channel, int) or (isinstance(spec.channel, str) and spec.channel != "luminance"):
        stacks = list(read_channels(spec.path, axes=spec.axes))
        name = spec.channel
        chosen = name if isinstance(name, int) else next(
            (k for k, s in enumerate(stacks) if s.name == stack.name or s.metadata.get("channel") == name), 0
        )  # fmt: skip
    if spec.frames is not None:
        start, stop = spec.frames
        if stop > len(stack):
            raise ValueError(
                f"frames {start} to {stop - 1} were asked for, but {spec.path} has frames 0 to {len(stack) - 1}"
            )
        stacks = [s.selected(slice(start, stop)) for s in stacks]
    return stacks, chosen % len(stacks)


def reference_of(named: Any, stack: ImageStack) -> Any:
    """Return the reference of a recipe: a path is read as an image, of one frame or the mean of its frames.

    Raises
    ------
    ValueError
        If it is neither a policy, a frame number nor a file, or the image has another shape than the frames.
    """
    if not isinstance(named, str) or named in POLICIES:
        return named
    if not Path(named).expanduser().exists():
        known = ", ".join(POLICIES)
        raise ValueError(f"reference {named!r} is neither a file nor one of {known}, nor a frame number")
    other = read_stack(named, axes="zyx" if stack.ndim == 3 else None)
    if other.frame_shape != stack.frame_shape:
        raise ValueError(
            f"the reference {named} is {other.frame_shape}, the frames are {stack.frame_shape}: they must be alike"
        )
    return np.mean(other.asarray(), axis=0, dtype=np.float32)


def _folder(place: str | PathLike[str], config: AlignmentConfig, overwrite: bool) -> RunFolder:
    path = Path(place).expanduser()
    names = (*RunFolder(path).files, *(path / name for name in (*_ENDINGS.values(), *_PARTS, _SELECTIONS)))
    there = [p for p in names if p.exists() and p != RunFolder(path).log]  # a log alone is no result
    if there and not overwrite:
        raise StackWriteError(
            f"{path} holds an earlier run ({there[0].name}): choose another folder, or let it be replaced (--overwrite)"
        )
    source = Path(config.input.path).expanduser()
    for old in there:
        if source.exists() and old.resolve() == source.resolve():
            raise StackWriteError(
                f"cannot write {old}: the stack is being read from this very file; choose another folder"
            )
    return RunFolder.create(path)


def _written(
    result: RunResult,
    aligned: list[ImageStack],
    config: AlignmentConfig,
    target: RunFolder,
    write_report: WriteReport | None,
) -> Work[None]:
    from stackalign.config import save_recipe

    # what takes long, and can fail or be cancelled, comes first: until it is whole an earlier result stands untouched
    name = target.path / _ENDINGS[config.output.format]
    stacks: Any = aligned if len(aligned) > 1 else aligned[0]
    yield from write_stack_work(name, stacks, compression=config.output.compression)
    written = {name}
    parts = result.registration.details.get("decomposition")
    if config.output.decomposition and parts is not None:
        for file, part in zip(_PARTS, (parts.low_rank, parts.sparse), strict=True):
            yield from write_stack_work(target.path / file, part, compression=config.output.compression)
            written.add(target.path / file)
    target.write_registration(result.registration, result.quality.to_frame())
    if config.output.script_output:
        yield from _above("script_output", "write_script_output_work")(
            target.path / "script_output", result.stack, result.registration, resampling=config.warp, overwrite=True
        )
    kept = config.model_copy(update={"output": config.output.model_copy(update={"folder": str(target.path)})})
    save_recipe(target.recipe, kept)
    if config.output.report and write_report is not None:
        yield Progress(0, 1, "Writing the report")
        write_report(target.report, result, kept)
        written.add(target.report)
        yield Progress(1, 1, "Writing the report")
    # what an earlier run left and this one did not replace belongs to another result
    for old in {target.path / file for file in (*_ENDINGS.values(), *_PARTS)} | {target.report}:
        if old not in written:
            _removed(old)


def _removed(path: Path) -> None:
    if path.is_dir():  # a Zarr
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _above(module: str, name: str) -> Any:
    """Return a writer that lies above this module: looked up by name when a recipe asks for it."""
    from importlib import import_module

    return getattr(import_module(f"stackalign.{module}"), name)


@contextmanager
def _or_nothing(target: RunFolder | None) -> Iterator[None]:
    """Take the folder away again if the run ends with nothing in it but its log: the error says what the log does."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if target is not None and list(target.path.iterdir()) == [target.log]:
                target.log.unlink()
                target.path.rmdir()
        raise


@contextmanager
def _logged(path: Path | None) -> Iterator[None]:
    """Keep what the program says while it runs in ``run.log``."""
    if path is None:
        yield
        return
    root = logging.getLogger("stackalign")
    try:
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    except OSError as error:
        raise StackWriteError(error.errno, f"cannot write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    except BaseException as error:
        root.error("stopped: %s", error or type(error).__name__)
        raise
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
