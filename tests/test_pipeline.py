"""From a recipe to a folder of files."""

import json
import logging

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile

import stackalign as sa
from stackalign.core.work import Cancelled
from tests.contract.cases import DRIFT, camera, deviation, moved, movie, scene

FILES = {
    "aligned.tif", "transforms.json", "transforms.csv", "quality.csv", "recipe.yaml", "report.html", "run.log",
}  # fmt: skip


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "movie.tif"
    sa.write_stack(path, sa.ImageStack(movie(), pixel_size=(0.2, 0.2), interval=0.5, unit="µm"))
    return path


def recipe(path, **changes):
    return sa.AlignmentConfig(input=sa.InputSpec(path=str(path)), **changes)


# register


def test_provenance_says_how_a_result_came_about():
    result = sa.register(sa.ImageStack(movie(), name="cells"), sa.CrossCorrelation(max_shift=9), reference="first")
    told = result.provenance
    assert told["program"] == f"stackalign {sa.__version__}"
    assert told["method"] == "cross-correlation"
    assert told["parameters"]["max_shift"] == 9
    assert told["reference"] == "first"
    assert told["anchor"] is None
    assert told["source"] == "cells"
    assert (told["frames"], told["frame_shape"]) == (8, [72, 88])
    assert told["times"]["seconds"] > 0
    json.dumps(dict(told))


def test_a_region_and_a_mask_count_where_both_do():
    frames = movie()
    both = np.zeros(frames.shape[1:], bool)
    both[10:60, 20:70] = True
    mask = np.zeros_like(both)
    mask[:, 20:] = True
    region = sa.Preprocess(region=(10, 60, 0, 70))
    a = sa.register(frames, sa.CrossCorrelation(), mask=mask, preprocess=region)
    b = sa.register(frames, sa.CrossCorrelation(), mask=both)
    assert a.transforms.matrices.tobytes() == b.transforms.matrices.tobytes()


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"the mask is \(3, 3\), the frames are \(72, 88\)"):
        sa.register(movie(), sa.CrossCorrelation(), mask=np.ones((3, 3)))
    with pytest.raises(ValueError, match="the mask leaves no pixel"):
        sa.register(movie(), sa.CrossCorrelation(), mask=np.zeros((72, 88)))


def test_a_cancel_keeps_the_registration_so_far():
    seen = []

    def stop():
        return len(seen) > 30

    with pytest.raises(sa.WorkCancelled) as caught:
        sa.register(movie(), sa.CrossCorrelation(), on_progress=seen.append, should_stop=stop)
    assert caught.value.partial is None or isinstance(caught.value.partial, sa.Registration)
    outcome = sa.drain(sa.register_work(movie(), sa.CrossCorrelation()), should_stop=lambda: True)
    assert isinstance(outcome, Cancelled)


# run


def test_a_run_writes_all_its_files(source, tmp_path):
    result = sa.run(recipe(source), folder=tmp_path / "out")
    folder = tmp_path / "out"
    assert {p.name for p in folder.iterdir()} == FILES
    assert result.folder.path == folder
    assert deviation(result.registration, DRIFT) < 0.05
    aligned = sa.read_stack(folder / "aligned.tif")
    assert aligned.dtype == np.uint16
    assert aligned.pixel_size == pytest.approx((0.2, 0.2))
    assert aligned.interval == pytest.approx(0.5)
    assert np.array_equal(aligned.asarray(), result.aligned.asarray())
    series = sa.load_transforms(folder / "transforms.json")
    assert np.array_equal(series.matrices, result.registration.transforms.matrices)
    assert len(pd.read_csv(folder / "transforms.csv", comment="#")) == 8
    table = pd.read_csv(folder / "quality.csv", comment="#")
    assert {"frame", "confidence", "flagged", "reason", "correlation_before", "correlation_after"} <= set(table)
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    log = (folder / "run.log").read_text(encoding="utf-8")
    assert result.sentence in log
    assert "finished in" in log
    assert result.seconds > 0
    assert result.quality.correlation_after > result.quality.correlation_before


def test_the_recipe_of_a_run_repeats_it_to_the_last_bit(source, tmp_path):
    config = recipe(source, warp=sa.WarpOptions(order=1, fill="edge", crop="valid"), seed=5, reference="median")
    sa.run(config, folder=tmp_path / "one")
    again = sa.load_recipe(tmp_path / "one" / "recipe.yaml")
    assert again.output.folder == str(tmp_path / "one")
    assert again == config.model_copy(update={"output": again.output})
    sa.run(again, folder=tmp_path / "two")
    for name in ("aligned.tif", "transforms.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_is_written_where_no_folder_is_named(source, tmp_path):
    result = sa.run(recipe(source))
    assert result.folder is None
    assert [p.name for p in tmp_path.iterdir()] == ["movie.tif"]


def test_an_earlier_run_is_not_replaced_unless_asked(source, tmp_path):
    out = tmp_path / "out"
    sa.run(recipe(source, output=sa.OutputSpec(folder=str(out), report=False)))
    before = (out / "aligned.tif").read_bytes()
    with pytest.raises(sa.StackWriteError, match=r"holds an earlier run .*choose another folder"):
        sa.run(recipe(source), folder=out)
    sa.run(recipe(source, warp=sa.WarpOptions(order=1)), folder=out, overwrite=True)
    assert (out / "aligned.tif").read_bytes() != before
    assert sa.load_recipe(out / "recipe.yaml").warp.order == 1


def test_the_input_is_never_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    sa.write_stack(out / "aligned.tif", sa.ImageStack(movie()))
    kept = (out / "aligned.tif").read_bytes()
    with pytest.raises(sa.StackWriteError, match="being read from this very file"):
        sa.run(recipe(out / "aligned.tif"), folder=out, overwrite=True)
    assert (out / "aligned.tif").read_bytes() == kept


@pytest.mark.parametrize(
    ("format", "name"), [("tif", "aligned.tif"), ("ome.tif", "aligned.ome.tif"), ("zarr", "aligned.zarr")]
)
def test_every_format_holds_the_same_pixels(source, tmp_path, format, name):
    output = sa.OutputSpec(
        folder=str(tmp_path / "out"), format=format, compression="deflate" if "tif" in format else "none", report=False
    )
    result = sa.run(recipe(source, output=output))
    assert np.array_equal(sa.read_stack(tmp_path / "out" / name).asarray(), result.aligned.asarray())


def test_a_range_of_frames(source, tmp_path):
    config = sa.AlignmentConfig(input=sa.InputSpec(path=str(source), frames=(2, 6)))
    result = sa.run(config)
    assert len(result.stack) == len(result.aligned) == 4
    assert deviation(result.registration, DRIFT[2:6]) < 0.05
    with pytest.raises(ValueError, match=r"frames 2 to 19 were asked for, but .* has frames 0 to 7"):
        sa.run(sa.AlignmentConfig(input=sa.InputSpec(path=str(source), frames=(2, 20))))


def test_channels_share_the_transforms_of_the_one_that_is_measured(tmp_path):
    signal = movie()
    other = camera(moved(scene((72, 88), 5), DRIFT), seed=8)
    path = tmp_path / "two.tif"
    sa.write_stack(path, (sa.ImageStack(other), sa.ImageStack(signal)))
    result = sa.run(sa.AlignmentConfig(input=sa.InputSpec(path=str(path), channel=1)), folder=tmp_path / "out")
    assert deviation(result.registration, DRIFT) < 0.05
    written = sa.read_channels(tmp_path / "out" / "aligned.tif")
    assert len(written) == 2
    for channel, frames in zip(written, (other, signal), strict=True):
        assert np.array_equal(channel.asarray(), sa.warp(frames, result.registration.transforms).asarray())
    assert np.array_equal(result.aligned.asarray(), written[1].asarray())


def test_a_reference_from_a_file(source, tmp_path):
    still = moved(scene((72, 88)), np.array([[1.0, -2.0]]))[0] * 3680 + 180
    tifffile.imwrite(tmp_path / "reference.tif", still.astype(np.float32))
    result = sa.run(recipe(source, reference=str(tmp_path / "reference.tif")))
    wanted = np.array([1.0, -2.0]) - DRIFT
    assert np.abs(result.registration.transforms.translations - wanted).max() < 0.15
    tifffile.imwrite(tmp_path / "small.tif", still[:50].astype(np.float32))
    with pytest.raises(ValueError, match=r"small\.tif is \(50, 88\), the frames are \(72, 88\)"):
        sa.run(recipe(source, reference=str(tmp_path / "small.tif")))
    with pytest.raises(ValueError, match=r"'nowhere\.tif' is neither a file nor one of"):
        sa.run(recipe(source, reference="nowhere.tif"))


def test_frames_that_are_flagged_stand_in_the_log_and_the_table(tmp_path):
    frames = movie()
    frames[3] = 0
    sa.write_stack(tmp_path / "movie.tif", sa.ImageStack(frames))
    result = sa.run(recipe(tmp_path / "movie.tif"), folder=tmp_path / "out")
    assert "1 flagged" in result.sentence
    assert "frame 3 is flagged: blank" in (tmp_path / "out" / "run.log").read_text()
    table = pd.read_csv(tmp_path / "out" / "quality.csv", comment="#")
    assert table["flagged"].tolist() == [False, False, False, True, False, False, False, False]
    assert table["reason"][3].startswith("blank")


def test_options_that_do_not_fit_are_refused_before_the_work(source, tmp_path):
    config = recipe(source, warp=sa.WarpOptions(fill="nan"))
    steps = []
    with pytest.raises(ValueError, match="uint16 pixels cannot hold NaN"):
        sa.run(config, folder=tmp_path / "out", on_progress=steps.append)
    assert steps == []
    assert not (tmp_path / "out").exists()


def test_a_cancel_leaves_no_half_written_result(source, tmp_path):
    steps = []

    def at(message):
        steps.clear()
        return lambda: bool(steps) and steps[-1].message.startswith(message)

    for message in ("Reading", "Measuring", "Writing"):
        with pytest.raises(sa.WorkCancelled) as caught:
            sa.run(recipe(source), folder=tmp_path / "out", on_progress=steps.append, should_stop=at(message))
        left = {p.name for p in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
        assert left <= {"run.log"}, (message, left)
        assert caught.value.partial is None or isinstance(caught.value.partial, sa.Registration | sa.RunResult)


def test_a_cancel_while_an_earlier_result_is_replaced_leaves_that_untouched(source, tmp_path):
    out = tmp_path / "out"
    sa.run(recipe(source), folder=out)
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "run.log"}
    steps = []
    with pytest.raises(sa.WorkCancelled):
        sa.run(
            recipe(source, warp=sa.WarpOptions(order=1)), folder=out, overwrite=True, on_progress=steps.append,
            should_stop=lambda: len(steps) > 20,
        )  # fmt: skip
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.name != "run.log"} == before


def test_logging_is_left_as_it_was(source, tmp_path):
    root = logging.getLogger("stackalign")
    before = (root.level, list(root.handlers))
    sa.run(recipe(source), folder=tmp_path / "out")
    with pytest.raises(ValueError, match="reference"):
        sa.run(recipe(source, reference="nothing"), folder=tmp_path / "other")
    assert (root.level, list(root.handlers)) == before
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_made_is_named(source, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(sa.StackWriteError, match="there is a file of this name"):
        sa.run(recipe(source), folder=tmp_path / "file")


def test_a_lazy_stack_is_read_frame_by_frame():
    frames = movie()
    reads = []

    def read(block_info=None, **_):
        t = block_info[None]["array-location"][0][0]
        reads.append(t)
        return frames[t : t + 1]

    lazy = da.map_blocks(read, chunks=((1,) * 8, (72,), (88,)), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    result = sa.register(sa.ImageStack(lazy), sa.CrossCorrelation())
    assert set(reads) == set(range(8))
    assert deviation(result, DRIFT) < 0.05
