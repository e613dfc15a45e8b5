"""Trials on pairs: rows, sums, refusals, figures; and the command that writes them."""

import numpy as np
import pandas as pd
import pytest
from skimage import data
from skimage.io import imsave
from typer.testing import CliRunner

from stackalign.cli.app import app
from stackalign.core.deep.pairs import SyntheticPairs, corner_error
from stackalign.core.pair import PairRegistration
from stackalign.core.transform import Transform
from stackalign.core.work import drain
from stackalign.io.pair_sets import PairSet
from stackalign.pair_evaluation import NOTHING, reliability, summary, try_pairs_work
from stackalign.plots_pairs import errors_figure, reliability_figure


class Oracle:
    """Answers with the truth of a pair moved by some pixels; refuses every third pair."""

    def __init__(self, pairs, off=0.0, refuse=False):
        self.pairs, self.off, self.refuse = list(pairs), off, refuse

    def fit_pair(self, moving, reference, *, mask=None, initial=None):
        number = next(k for k, p in enumerate(self.pairs) if p.moving is moving)
        if self.refuse and number % 3 == 2:
            return PairRegistration(Transform.identity(2), 0.1, True, "too dark", np.nan, np.full(2, np.nan))
        shift = Transform.from_translation((self.off, 0))
        found = shift @ Transform(self.pairs[number].matrix, "projective")
        return PairRegistration(found, 0.9, False, "", np.nan, np.zeros(2))


@pytest.fixture(scope="module")
def pairs():
    recipe = SyntheticPairs(size=64, template=40, reach=12, strength=0, zoom=(1, 2))
    made = [recipe.pair([data.astronaut()], k) for k in range(6)]
    return PairSet("made", "synthetic", tuple(lambda p=p: p for p in made))


def test_errors_are_those_of_the_corners_and_refused_ones_count_against(pairs):
    methods = {"exact": Oracle(pairs), "off": Oracle(pairs, 2.0, refuse=True)}
    trials = drain(try_pairs_work(pairs, methods)).unwrap()
    assert len(trials) == 12
    off = trials[trials["method"] == "off"]
    np.testing.assert_allclose(off["error_px"].dropna(), 2.0, atol=1e-6)
    assert off["refused"].sum() == 2
    assert set(off.loc[off["refused"], "reason"]) == {"too dark"}
    short = summary(trials).set_index("method")
    assert list(short.index) == [NOTHING, "exact", "off"]
    assert short.loc["exact", "max_px"] < 1e-6
    assert short.loc["off", "refused_%"] == pytest.approx(33.3)
    assert short.loc["off", "under_3px_%"] == pytest.approx(66.7)
    assert short.loc["off", "under_1px_%"] == 0
    assert short.loc["off", "accepted_under_5px_%"] == 100
    floor = np.mean([corner_error(p.nothing, p.corners) for p in pairs])
    assert short.loc[NOTHING, "mean_px"] == pytest.approx(floor, abs=1e-3)
    assert short.loc["off", "worse_than_nothing"] == 0


def test_several_groups_are_summed_up_apart_and_together():
    rows = [
        {"method": "m", "group": g, "pair": f"{g}{k}", "error_px": e, "nothing_px": 20.0, "refused": np.isnan(e),
         "reason": "", "probability": 0.8, "seconds": 0.1}
        for g, errors in (("a", (0.5, 2.0)), ("b", (30.0, np.nan)), ("c", (np.nan, np.nan)))
        for k, e in enumerate(errors)
    ]  # fmt: skip
    short = summary(pd.DataFrame(rows))
    ours = short[short["method"] == "m"].set_index("group")
    assert list(ours.index) == ["a", "b", "c", "all"]
    assert ours.loc["b", "worse_than_nothing"] == 1
    assert ours.loc["all", "under_3px_%"] == pytest.approx(33.3)
    assert ours.loc["all", "median_px"] == 2.0
    assert np.isnan(ours.loc["c", "median_px"])
    bins = reliability(pd.DataFrame(rows))
    assert bins["pairs"].tolist() == [3]
    assert bins["found"].tolist() == [pytest.approx(2 / 3)]
    assert len(errors_figure(pd.DataFrame(rows)).axes[0].lines) >= 2
    assert reliability_figure(bins).axes
    assert reliability_figure(reliability(pd.DataFrame(rows).assign(probability=np.nan))).axes


def test_the_command_writes_tables_and_figures(tmp_path):
    (tmp_path / "pictures").mkdir()
    imsave(tmp_path / "pictures" / "a.png", data.camera()[:200, :200], check_contrast=False)
    out = tmp_path / "out"
    command = [
        "evaluate",
        "--pairs",
        str(tmp_path / "pictures"),
        "--count",
        "2",
        "-m",
        "lucas-kanade,cross-correlation",
    ]
    command += ["-o", str(out), "--set", "size=64", "--set", "template=64", "--set", "reach=0", "--set", "strength=0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == {"pairs.csv", "summary.csv", "errors.png", "reliability.png"}
    trials = pd.read_csv(out / "pairs.csv")
    assert trials["error_px"].max() < 0.2
    assert len(trials) == 4
    assert "doing nothing" in done.output
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    for change, said in (
        (["-m", "reals"], "registers no pairs"),
        (["--with", "depth=3"], "depth"),
        (["--set", "sise=3"], "did you mean 'size'"),
        (["--split", "test"], "neither train nor val"),
    ):
        wrong = CliRunner().invoke(app, [*command, "--overwrite", *change])
        assert wrong.exit_code == 2
        assert said in " ".join(wrong.output.split())


def test_files_of_weights_are_tried_beside_methods(tmp_path):
    torch = pytest.importorskip("torch")
    from stackalign.core.deep.networks import build
    from stackalign.core.deep.weights import arrays_of, packed

    imsave(tmp_path / "a.png", data.camera()[:200, :200], check_contrast=False)
    options = {"widths": [4, 4], "hidden": 8}
    files = []
    for name, own in (("dhn", options), ("mhn", {**options, "levels": 2}), ("clkn", {"width": 4, "iterations": 2})):
        torch.manual_seed(0)
        folder = tmp_path / name
        folder.mkdir()
        files.append(folder / "weights.safetensors")
        files[-1].write_bytes(packed(arrays_of(build(name, own)), {"network": name, "options": own}))
    out = tmp_path / "out"
    command = ["evaluate", "--pairs", str(tmp_path), "--count", "2", "-m", ",".join(map(str, files)), "-o", str(out)]
    command += ["--set", "size=64", "--set", "template=48", "--set", "reach=8", "--set", "inverted=true"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    short = pd.read_csv(out / "summary.csv").set_index("method")
    assert list(short.index) == [NOTHING, "dhn", "mhn", "clkn"]
    assert short.loc["dhn", "refused_%"] == 0
    assert short.loc["dhn", "mean_px"] == pytest.approx(short.loc[NOTHING, "mean_px"], abs=1)  # untrained
    files[1].write_bytes(files[1].read_bytes()[:200])
    wrong = CliRunner().invoke(app, [*command, "--overwrite"])
    assert wrong.exit_code == 2
    assert "truncated" in " ".join(wrong.output.split())
