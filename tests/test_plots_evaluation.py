"""Figures of experiments: drawn from tables, doing nothing always beside them."""

from __future__ import annotations

import pandas as pd
import pytest

from stackalign.plots import save_figure
from stackalign.plots_evaluation import bars_figure, course_figure, heat_map_figure


@pytest.fixture
def table():
    rows = [
        {
            "variant": name, "translation_px": shift, "rotation_deg": angle, "draw": draw,
            "inconsistency": 1e-3 * (1 + draw), "inconsistency_before": 0.01 * (shift + angle),
            "error_px": 0.02, "error_before_px": shift + angle,
        }
        for name in ("batch_size 4", "batch_size none") for shift in (0.0, 3.0) for angle in (0.0, 2.0, 4.0)
        for draw in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("quantity", ["inconsistency", "error_px"])
def test_maps_of_doing_nothing_and_each_variant(table, quantity, tmp_path):
    figure = heat_map_figure(table, quantity)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["doing nothing", "batch_size 4", "batch_size none"]
    image = figure.axes[1].images[0].get_array()
    assert image.shape == (3, 2)
    assert image[0, 0] == pytest.approx(1.5e-3 if quantity == "inconsistency" else 0.02)
    save_figure(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_bars_show_means(table):
    figure = bars_figure(table)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([table["inconsistency_before"].mean(), 1.5e-3, 1.5e-3])


def test_courses_with_the_level_of_doing_nothing():
    figure = course_figure({"reals": [[(0.0, 0.2), (1.5, 0.01)], [(0.0, 0.3), (2.0, 0.02)]]}, 0.25)
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines if not line.get_label().startswith("_")] == ["reals", "doing nothing"]
    assert lines[-1].get_ydata()[0] == 0.25


def test_of_many_courses_the_median_stands_out():
    courses = [[(0.0, 0.2), (0.5 + 0.1 * k, 0.01 * (k + 1))] for k in range(9)]
    lines = course_figure({"reals": courses}, 0.25).axes[0].get_lines()
    (median,) = (line for line in lines if line.get_label() == "reals")
    assert median.get_ydata()[0] == 0.2
    assert median.get_xdata()[-1] == pytest.approx(0.9)  # half of them have ended
    assert median.get_ydata()[-1] == pytest.approx(0.05)
    assert len(lines) == 2 * 9 + 2
