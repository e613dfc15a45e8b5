"""Write a result by particles as the folder ``script_output`` that the scripts before this program left; pixels, x, y.

The scripts read ``particle_selections.json`` and find the rest through it: ``particles_tracking/NAME_trk.csv``,
``drift_analysis/averaged_drift_trajectory.csv``, ``aligned/`` (an image a frame, ``alignment_log.csv``),
``validation/`` (``aligned_particles_tracking.csv``, pictures) and ``log.txt``. A drift is how far something moved since
the first image.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.frames.frame_check import read_frame
from stackalign.core.geometry import centre
from stackalign.core.spots.fit import fit_spot
from stackalign.core.spots.in_place import fit_in_place_work
from stackalign.core.spots.picks import Pick
from stackalign.core.stack import FrameError
from stackalign.core.warping.warp import WarpOptions, warp
from stackalign.core.work import Progress, drain
from stackalign.io.errors import StackWriteError
from stackalign.io.picks import write_selections
from stackalign.io.tables import write_table
from stackalign.io.write import write_stack
from stackalign.picking import BOX, box_around

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    import pandas as pd
    from numpy.typing import NDArray

    from stackalign.core.registration import Registration
    from stackalign.core.spots.tracks import TrackSet
    from stackalign.core.stack import ImageStack
    from stackalign.core.transform_series import TransformSeries
    from stackalign.core.work import Work

    Array = NDArray[np.float64]

NAME = "script_output"
SELECTIONS = "particle_selections.json"
COLUMNS = (
    "filename", "particle_id", "image_index", "bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1", "success", "center_x",
    "center_y", "drift_x", "drift_y", "drift_magnitude", "amplitude", "sigma_x", "sigma_y", "rotation_angle",
    "background", "r_squared",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ScriptOutput:
    """What the folder holds, worked out.

    Attributes
    ----------
    tracking, validation : DataFrame
        A row an image and particle: in the images as they are, and fitted anew in the aligned ones.
    averaged : DataFrame
        A row an image: mean drift of the chosen particles.
    alignment : DataFrame
        A row an image: the drift that was taken out at the centre of the field.
    particles : tuple of int
        All of them.
    chosen : tuple of int
        Those that make the motion: neither excluded nor moving on their own.
    """

    tracking: pd.DataFrame
    validation: pd.DataFrame
    averaged: pd.DataFrame
    alignment: pd.DataFrame
    particles: tuple[int, ...]
    chosen: tuple[int, ...]

    def reduction(self) -> pd.DataFrame:
        """Return one row a chosen particle: greatest and mean drift before and after, px, and how much less in %."""
        import pandas as pd

        rows = []
        for number in self.chosen:
            before, after = (
                table.loc[(table["particle_id"] == number) & table["success"], "drift_magnitude"].to_numpy()
                for table in (self.tracking, self.validation)
            )
            if not len(before) or not len(after):
                continue
            row: dict[str, Any] = {"particle_id": number}
            for name, measure in (("max", np.max), ("mean", np.mean)):
                was, left = float(measure(before)), float(measure(after))
                row |= {f"{name}_before": was, f"{name}_after": left}
                row[f"{name}_reduction_percent"] = 100 * (1 - left / was) if was > 0 else 0.0
            rows.append(row)
        return pd.DataFrame(rows)


def write_script_output(
    folder: str | PathLike[str],
    stack: ImageStack,
    registration: Registration,
    *,
    resampling: WarpOptions | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Write the folder; parameters and errors as for `write_script_output_work`."""
    work = write_script_output_work(folder, stack, registration, resampling=resampling, overwrite=overwrite)
    return drain(work, on_progress, should_stop).unwrap()


def write_script_output_work(
    folder: str | PathLike[str],
    stack: ImageStack,
    registration: Registration,
    *,
    resampling: WarpOptions | None = None,
    overwrite: bool = False,
) -> Work[Path]:
    """Write a result by particles as the particle scripts do, as work.

    Parameters
    ----------
    folder : path
        The folder itself; made if it is not there. The scripts expect the name ``script_output``.
    stack : ImageStack
        The 2-D frames that were aligned.
    registration : Registration
        Of `ParticleTracking`: its ``details`` hold the tracks.
    resampling : WarpOptions, optional
        Order and fill of the aligned images; they are never cropped, since the scripts' boxes count from one corner.
    overwrite : bool
        Whether files of an earlier run may be replaced.

    Raises
    ------
    ValueError
        If the result is not of particles, or not 2-D.
    StackWriteError
        If the folder holds an earlier run, or cannot be written.
    """
    from stackalign.script_figures import write_figures

    check_result(stack, registration)
    target = Path(folder).expanduser()
    if (target / SELECTIONS).exists() and not overwrite:
        raise StackWriteError(
            f"{target} holds an earlier run ({SELECTIONS}): choose another folder, or let it be replaced (overwrite)"
        )
    begun = datetime.now()
    places = {name: target / name for name in ("particles_tracking", "drift_analysis", "aligned", "validation")}
    for place in places.values():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackWriteError(error.errno, f"cannot make the folder {place}: {error.strerror}") from error
    names = file_names(stack)
    tracks: TrackSet = registration.details["tracks"]
    series = registration.transforms.rebased(0, centre=centre(stack.frame_shape))
    options = WarpOptions() if resampling is None else resampling
    images = warp(stack, series, order=options.order, fill=options.fill)
    scene = scene_of(tracks, series)
    boxes = [box_around(p, n, stack.frame_shape) for p, n in zip(np.nan_to_num(scene), _sizes(tracks), strict=True)]
    again = yield from fit_in_place_work(images, boxes, tracks.ids, model="rotated", estimator="lsq")
    output = worked_out(stack, registration, again, names)
    failed = yield from _write_images(images, stack, names, places["aligned"])
    output.alignment.loc[list(failed), "aligned"] = False
    output.alignment.loc[list(failed), "status"] = [f"error: {why}" for why in failed.values()]
    table = places["particles_tracking"] / f"{stack.name or 'movie'}_trk.csv"
    averaged = places["drift_analysis"] / "averaged_drift_trajectory.csv"
    log, proof = places["aligned"] / "alignment_log.csv", places["validation"] / "aligned_particles_tracking.csv"
    for path, rows in (
        (table, output.tracking), (averaged, output.averaged), (log, output.alignment), (proof, output.validation)
    ):  # fmt: skip
        write_table(path, rows)
    yield from write_figures(output, places["drift_analysis"], places["validation"])
    images_folder = _images_folder(stack)
    picks = [
        Pick.of(box, frame=0, id=int(k))
        for k, box, place in zip(tracks.ids, boxes, scene, strict=True)
        if np.isfinite(place).all()
    ]
    first, why = read_frame(stack, 0)
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    write_selections(
        target / SELECTIONS,
        picks,
        folder=images_folder,
        first_image=names[0],
        total_images=len(stack),
        image_shape=stack.frame_shape,
        fits={} if why else {pick.id: fit_spot(first, pick.box) for pick in picks},
        chosen=output.chosen,
        more={
            "csv_file_path": str(table.resolve()),
            "csv_file_name": table.name,
            "drift_csv_file_path": str(averaged.resolve()),
            "drift_csv_file_name": averaged.name,
            "drift_analysis_folder": str(averaged.parent.resolve()),
            "aligned_folder_path": str(log.parent.resolve()),
            "alignment_log_path": str(log.resolve()),
            "alignment_completed": now,
            "validation_folder": str(proof.parent.resolve()),
            "validation_csv_path": str(proof.resolve()),
            "validation_csv_name": proof.name,
            "validation_completed": now,
        },
    )
    _write_log(target / "log.txt", begun, stack, output)
    return target


def check_result(stack: ImageStack, registration: Registration) -> None:
    """Raise ValueError if the scripts' folder cannot be made of a result."""
    if registration.details.get("tracks") is None:
        raise ValueError(f"{NAME} holds followed particles: align with the method 'particles'")
    if stack.ndim != 2:
        raise ValueError(f"{NAME} is of 2-D images, these are {stack.ndim}-D: the scripts know no volumes")


def worked_out(stack: ImageStack, registration: Registration, again: TrackSet, names: Sequence[str]) -> ScriptOutput:
    """Return the tables; ``again`` holds the particles fitted in the aligned images."""
    tracks: TrackSet = registration.details["tracks"]
    series = registration.transforms.rebased(0, centre=centre(stack.frame_shape))
    strays = registration.details["motion"].outliers
    chosen = tuple(int(k) for k in registration.details["motion"].ids if int(k) not in strays)
    still = series.from_translations(np.zeros((len(series), 2)))
    before = tracking_table(tracks, series, names, stack.frame_shape)
    after = tracking_table(again.selected(chosen), still, names, stack.frame_shape)
    alignment = alignment_table(tracks.selected(chosen), series, registration.quality.reasons, names, stack.frame_shape)
    numbers = tuple(int(k) for k in tracks.ids)
    return ScriptOutput(before, after, averaged_table(before, chosen, alignment), alignment, numbers, chosen)


def scene_of(tracks: TrackSet, series: TransformSeries) -> Array:
    """Return where each particle lies in the first image: there, or where the motion says (P, d); NaN: never found."""
    mapped = np.einsum("tij,ptj->pti", series.matrices[:, :-1, :-1], tracks.position) + series.matrices[:, :-1, -1]
    out = np.full((len(tracks), tracks.ndim), np.nan)
    for k, here in enumerate(tracks.found):
        if here.any():
            out[k] = mapped[k, int(here.argmax())]
    return out


def tracking_table(
    tracks: TrackSet, series: TransformSeries, names: Sequence[str], shape: tuple[int, ...]
) -> pd.DataFrame:
    """Return a row an image and particle, with the columns of the scripts.

    Drifts count from the first image; for a particle that was not found there from where the motion ``series``
    (moving -> first image) says that it was.
    """
    import pandas as pd

    count, length = tracks.found.shape
    scene = scene_of(tracks, series)
    back = np.linalg.inv(series.matrices)
    expected = np.einsum("tij,pj->pti", back[:, :2, :2], np.nan_to_num(scene)) + back[:, :2, 2]
    place = np.where(tracks.found[..., None], tracks.position, expected)
    size = _sizes(tracks)
    corner = np.round(place).astype(int) - (size[:, None] - 1) // 2
    corner = np.clip(corner, 0, np.maximum(np.array(shape) - size, 0)[:, None])
    stop = np.minimum(corner + size[:, None], shape)
    drift = tracks.position - scene[:, None]

    def flat(values: NDArray[Any]) -> NDArray[Any]:
        return np.swapaxes(values, 0, 1).reshape(length * count, *values.shape[2:])

    values = {
        "filename": np.repeat(np.asarray(names, object), count),
        "particle_id": np.tile(tracks.ids, length),
        "image_index": np.repeat(np.arange(length), count),
        "bbox_x0": flat(corner[..., 1]), "bbox_y0": flat(corner[..., 0]),
        "bbox_x1": flat(stop[..., 1]), "bbox_y1": flat(stop[..., 0]),
        "success": flat(tracks.found),
        "center_x": flat(tracks.position[..., 1]), "center_y": flat(tracks.position[..., 0]),
        "drift_x": flat(drift[..., 1]), "drift_y": flat(drift[..., 0]),
        "drift_magnitude": flat(np.hypot(drift[..., 0], drift[..., 1])),
        "amplitude": flat(tracks.amplitude),
        "sigma_x": flat(tracks.sigma[..., 1]), "sigma_y": flat(tracks.sigma[..., 0]),
        "rotation_angle": flat(-tracks.angle),  # radians, there from x towards y
        "background": flat(tracks.background),
        "r_squared": flat(np.where(tracks.found, tracks.r_squared, np.nan)),
    }  # fmt: skip
    return pd.DataFrame(values, columns=list(COLUMNS))


def averaged_table(tracking: pd.DataFrame, chosen: Sequence[int], alignment: pd.DataFrame) -> pd.DataFrame:
    """Return the mean drift of the chosen particles and its spread, a row an image.

    Where none of them was found it is the drift of the alignment, from 0 particles, without a spread.
    """
    import pandas as pd

    used = tracking[tracking["success"] & tracking["particle_id"].isin(list(chosen))]
    groups = used.groupby("image_index")
    index = np.arange(len(alignment))
    count = groups["particle_id"].count().reindex(index, fill_value=0).to_numpy()
    out: dict[str, Any] = {"image_index": index, "filename": alignment["filename"].to_numpy()}
    for axis in "xy":
        mean = groups[f"drift_{axis}"].mean().reindex(index).to_numpy()
        spread = groups[f"drift_{axis}"].std().reindex(index).to_numpy()
        out[f"avg_drift_{axis}"] = np.where(count > 0, mean, alignment[f"avg_drift_{axis}"].to_numpy())
        out[f"std_drift_{axis}"] = np.where(count == 1, 0.0, spread)
    out["num_particles_averaged"] = count
    out["avg_drift_magnitude"] = np.hypot(out["avg_drift_x"], out["avg_drift_y"])
    return pd.DataFrame(out)


def alignment_table(
    tracks: TrackSet, series: TransformSeries, reasons: Sequence[str], names: Sequence[str], shape: tuple[int, ...]
) -> pd.DataFrame:
    """Return a row an image: the drift taken out at the centre of the field, and the rotation of the scene there."""
    import pandas as pd

    middle = np.asarray(centre(shape), float)
    back = np.linalg.inv(series.matrices)
    drift = back[:, :2, :2] @ middle + back[:, :2, 2] - middle
    status = [
        "success" if ok else f"interpolated: {why or 'no particle was found'}"
        for ok, why in zip(series.valid, reasons, strict=True)
    ]
    return pd.DataFrame(
        {
            "filename": list(names),
            "avg_drift_x": drift[:, 1],
            "avg_drift_y": drift[:, 0],
            "num_particles": tracks.found.sum(0),
            "aligned": True,
            "status": status,
            "rotation_deg": -np.degrees(series.angles),
        }
    )


def file_names(stack: ImageStack) -> list[str]:
    """Return the name of each frame's image: its own file's, or a number behind the movie's name."""
    files = [Path(f) for f in stack.metadata.get("lazy_files", ())]
    if len(files) == len(stack) and len({f.stem for f in files}) == len(files):
        return [f.name if f.suffix.lower() in (".tif", ".tiff") else f"{f.stem}.tif" for f in files]
    digits = max(len(str(len(stack) - 1)), 4)
    return [f"{stack.name or 'movie'}_{t:0{digits}d}.tif" for t in range(len(stack))]


def _sizes(tracks: TrackSet) -> NDArray[np.int64]:
    return np.where(tracks.box_shape > 0, tracks.box_shape, BOX)


def _images_folder(stack: ImageStack) -> Path:
    source = Path(str(stack.metadata.get("source", "."))).expanduser().resolve()
    return source if source.is_dir() else source.parent


def _write_images(images: ImageStack, stack: ImageStack, names: Sequence[str], folder: Path) -> Work[dict[int, str]]:
    """Write every aligned frame under its own name; returns why those that cannot be read are not there."""
    failed = dict(stack.missing)
    own = {Path(f).resolve() for f in stack.metadata.get("lazy_files", ())}
    for t, name in enumerate(names):
        path = folder / name
        if path.resolve() in own:
            raise StackWriteError(f"cannot write {path}: the stack is being read from this very file")
        if t not in failed:
            try:
                write_stack(path, images.selected(slice(t, t + 1)))
            except FrameError as error:
                failed[t] = str(error)
        yield Progress(t + 1, len(names), "Writing the aligned images")
    return failed


def _write_log(path: Path, begun: datetime, stack: ImageStack, output: ScriptOutput) -> None:
    """Append what was done, as the scripts' log does: it outlives a run."""
    from stackalign import __version__

    found = output.tracking.groupby("particle_id")["success"].mean()
    ruler = "=" * 80
    head = f"\n{ruler}\nNEW PIPELINE RUN - {begun.strftime('%Y-%m-%d %H:%M:%S')}\n{ruler}\n\n"
    lines = [
        ("DriftAnalysis", f"stackalign {__version__}: {len(stack)} images of {_images_folder(stack)}"),
        ("DriftAnalysis", f"{len(output.particles)} particles, success rate {100 * float(found.mean()):.1f}%"),
        *(("DriftAnalysis", f"particle {k}: found in {100 * float(share):.1f}%") for k, share in found.items()),
        ("TrajectorySelector", f"particles used: {list(output.chosen)}"),
        ("ImageAlignment", f"aligned: {int(output.alignment['aligned'].sum())} of {len(output.alignment)} images"),
        *(
            ("ImageAlignment", f"{row.filename}: {row.status}")
            for row in output.alignment.itertuples()
            if row.status != "success"
        ),
        *(
            (
                "Validation",
                f"particle {row['particle_id']:.0f}: max drift {row['max_before']:.3f} -> {row['max_after']:.3f} px "
                f"({row['max_reduction_percent']:.1f}% less), mean {row['mean_before']:.3f} -> "
                f"{row['mean_after']:.3f} px ({row['mean_reduction_percent']:.1f}% less)",
            )
            for _, row in output.reduction().iterrows()
        ),
    ]
    clock = datetime.now().strftime("%H:%M:%S")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(head + "".join(f"[{clock}] [{step}] {words}\n" for step, words in lines))
    except OSError as error:
        raise StackWriteError(error.errno, f"cannot write {path}: {error.strerror}") from error
