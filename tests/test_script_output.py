"""The folder ``script_output``: its columns, its numbers, and what the particle scripts look for in it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stackalign as sa
from stackalign.core.geometry import centre
from stackalign.script_output import COLUMNS, SELECTIONS
from tests.core.spots.scenes import boxes, render, spread

SHAPE, LENGTH = (120, 150), 6
AVERAGED = [
    "image_index", "filename", "avg_drift_x", "std_drift_x", "avg_drift_y", "std_drift_y", "num_particles_averaged",
    "avg_drift_magnitude",
]  # fmt: skip


def movie(folder: Path) -> tuple[sa.ImageStack, np.ndarray]:
    """Images 1.tif ... in a folder, and the drift (T, 2) of the field; particle 1 walks, 2 starts late."""
    rng = np.random.default_rng(3)
    scene = spread(rng, 7, 22, SHAPE, apart=24)
    drift = np.stack([0.8 * np.arange(LENGTH), -1.2 * np.arange(LENGTH)], 1)
    where = scene[:, None] + drift
    where[0] += np.stack([0.7 * np.arange(LENGTH), 0.4 * np.arange(LENGTH)], 1)
    height = np.full((7, LENGTH), 900.0)
    height[1, 0] = 0.0
    frames = render(where, SHAPE, amplitude=height, sigma=1.8, background=40.0, seed=1)
    folder.mkdir()
    for t, frame in enumerate(frames):
        sa.write_stack(folder / f"{t + 1}.tif", frame[None])
    stack = sa.read_stack(folder)
    picks = [p.model_copy(update={"frame": 1}) for p in boxes(where[:, 1], SHAPE)]
    sa.write_picks(folder.with_name("picks.json"), picks)
    return stack, drift


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, sa.Registration]:
    base = tmp_path_factory.mktemp("scripts")
    stack, drift = movie(base / "exported")
    result = sa.register(stack, sa.ParticleTracking(picks=sa.read_picks(base / "picks.json")))
    assert set(result.details["motion"].outliers) == {1}
    return sa.write_script_output(base / "script_output", stack, result), drift, result


def test_the_scripts_find_everything_through_the_selections(written) -> None:
    folder, _, result = written
    one = json.loads((folder / SELECTIONS).read_text())["image_set"]
    assert Path(one["folder_path"]) == folder.parent / "exported"
    assert (one["first_image"], one["total_images"], one["image_shape"]) == ("1.tif", LENGTH, list(SHAPE))
    assert one["selected_particles_for_drift"] == [2, 3, 4, 5, 6, 7]
    for entry in ("csv_file_path", "drift_csv_file_path", "alignment_log_path", "validation_csv_path"):
        assert Path(one[entry]).is_file()
    assert sorted(p.name for p in Path(one["aligned_folder_path"]).glob("*.tif")) == [f"{k}.tif" for k in range(1, 7)]
    assert (folder / "log.txt").read_text().count("NEW PIPELINE RUN") == 1
    names = {p.name for p in Path(one["validation_folder"]).glob("*.png")}
    assert names == {"drift_reduction_summary.png", *(f"particle_{k}_comparison.png" for k in range(2, 8))}
    picks = sa.read_picks(folder / SELECTIONS)  # boxes in the first image, also of what was picked elsewhere
    first = result.details["tracks"].position[:, 0]
    for pick, place in zip(picks, first, strict=True):
        if np.isfinite(place).all():
            assert np.abs(np.array(pick.centre) - place).max() <= 1.0


def test_the_tracking_table_has_the_columns_and_the_drift(written) -> None:
    folder, drift, result = written
    table = pd.read_csv(next((folder / "particles_tracking").glob("*.csv")))
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 7 * LENGTH
    assert table["success"].dtype == bool
    lost = table[~table["success"]]
    assert lost[["particle_id", "image_index"]].to_numpy().tolist() == [[2, 0]]
    assert lost[["center_x", "drift_x", "amplitude", "r_squared"]].isna().all().all()
    for number in range(2, 8):  # also the one that was not there in the first image
        rows = table[(table["particle_id"] == number) & table["success"]]
        found = rows[["drift_y", "drift_x"]].to_numpy()
        assert np.abs(found - drift[rows["image_index"]]).max() < 0.1
    tracks = result.details["tracks"]
    row = table[(table["particle_id"] == 5) & (table["image_index"] == 3)].iloc[0]
    assert (row["center_y"], row["center_x"]) == tuple(tracks.position[4, 3])
    assert (row["sigma_y"], row["sigma_x"]) == tuple(tracks.sigma[4, 3])
    assert row["bbox_x0"] < row["center_x"] < row["bbox_x1"]
    assert row["bbox_y0"] < row["center_y"] < row["bbox_y1"]
    # the scripts' Gaussian with these numbers is ours
    y, x = np.mgrid[int(row["bbox_y0"]) : int(row["bbox_y1"]), int(row["bbox_x0"]) : int(row["bbox_x1"])]
    c, s = np.cos(row["rotation_angle"]), np.sin(row["rotation_angle"])
    dx, dy = x - row["center_x"], y - row["center_y"]
    theirs = row["amplitude"] * np.exp(
        -0.5 * ((dx * c + dy * s) / row["sigma_x"]) ** 2 - 0.5 * ((dy * c - dx * s) / row["sigma_y"]) ** 2
    )
    spot = sa.GaussianSpot(tracks.amplitude[4, 3], tracks.position[4, 3], tracks.sigma[4, 3], tracks.angle[4, 3])
    np.testing.assert_allclose(theirs, spot.image(y.shape, (y[0, 0], x[0, 0])), atol=1e-6)


def test_averaged_drift_log_and_validation(written) -> None:
    folder, drift, _ = written
    mean = pd.read_csv(folder / "drift_analysis" / "averaged_drift_trajectory.csv")
    assert list(mean.columns) == AVERAGED
    assert mean["num_particles_averaged"].tolist() == [5, 6, 6, 6, 6, 6]
    np.testing.assert_allclose(mean[["avg_drift_y", "avg_drift_x"]], drift, atol=0.05)
    np.testing.assert_allclose(mean["avg_drift_magnitude"], np.hypot(mean["avg_drift_x"], mean["avg_drift_y"]))
    log = pd.read_csv(folder / "aligned" / "alignment_log.csv")
    names = ["filename", "avg_drift_x", "avg_drift_y", "num_particles", "aligned", "status", "rotation_deg"]
    assert list(log.columns) == names
    np.testing.assert_allclose(log[["avg_drift_y", "avg_drift_x"]], drift, atol=0.05)
    assert log["aligned"].all()
    assert set(log["status"]) == {"success"}
    assert np.abs(log["rotation_deg"]).max() < 0.1
    proof = pd.read_csv(folder / "validation" / "aligned_particles_tracking.csv")
    assert tuple(proof.columns) == COLUMNS
    assert set(proof["particle_id"]) == set(range(2, 8))
    assert proof["drift_magnitude"].max() < 0.25  # of 7 px; what is cut off at the border included
    assert sa.read_stack(folder / "aligned").shape == (LENGTH, *SHAPE)


def test_an_earlier_run_is_not_replaced_unasked(written) -> None:
    folder, _, result = written
    stack = sa.read_stack(folder.parent / "exported")
    with pytest.raises(sa.StackWriteError, match="holds an earlier run"):
        sa.write_script_output(folder, stack, result)
    sa.write_script_output(folder, stack, result, overwrite=True)
    assert (folder / "log.txt").read_text().count("NEW PIPELINE RUN") == 2


def test_other_results_cannot_become_it(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((3, 40, 40), np.float32)
    result = sa.register(frames, sa.CrossCorrelation())
    with pytest.raises(ValueError, match="align with the method 'particles'"):
        sa.write_script_output(tmp_path / "out", sa.ImageStack(frames), result)
    assert not (tmp_path / "out").exists()


def test_a_turned_movie_and_a_gap_of_all(tmp_path: Path) -> None:
    """One file instead of a folder, rotation about the centre, a frame in which nothing is found."""
    rng = np.random.default_rng(4)
    scene = spread(rng, 5, 25, SHAPE, apart=24)
    turn = np.deg2rad([0.0, 0.6, 1.2, 1.8])
    moves = [sa.Transform.from_rotation(a, (0.5 * t, t), centre(SHAPE)) for t, a in enumerate(turn)]
    where = np.stack([m(scene) for m in moves], 1)
    height = np.full((5, 4), 900.0)
    height[:, 2] = 0.0
    frames = render(where, SHAPE, amplitude=height, sigma=1.8, background=40.0, seed=2)
    path = sa.write_stack(tmp_path / "beads.tif", frames)
    stack = sa.read_stack(path, axes="tyx")
    result = sa.register(stack, sa.ParticleTracking(picks=boxes(where[:, 0], SHAPE)))
    folder = sa.write_script_output(tmp_path / "script_output", stack, result)
    log = pd.read_csv(folder / "aligned" / "alignment_log.csv")
    assert log["filename"].tolist() == [f"beads_{t:04d}.tif" for t in range(4)]
    assert log["status"][2].startswith("interpolated: no particle was found")
    np.testing.assert_allclose(log["avg_drift_x"], [0, 1, 2, 3], atol=0.1)  # the middle one from its neighbours
    np.testing.assert_allclose(log["rotation_deg"], np.rad2deg(turn), atol=0.1)
    mean = pd.read_csv(folder / "drift_analysis" / "averaged_drift_trajectory.csv")
    assert mean["num_particles_averaged"].tolist() == [5, 5, 0, 5]
    assert mean["avg_drift_x"].notna().all()
    assert np.isnan(mean["std_drift_x"][2])
    assert json.loads((folder / SELECTIONS).read_text())["image_set"]["folder_path"] == str(tmp_path)
