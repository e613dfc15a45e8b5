from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import stackalign as sa
from stackalign import report
from stackalign.cli import app
from stackalign.config import AlignmentConfig, InputSpec, OutputSpec


def made(folder, name="movie", **simulation):
    stack, _ = sa.simulate(**{"frames": 6, "shape": (48, 64), "seed": 2} | simulation)
    stack = replace(stack, pixel_size=(0.1,) * stack.ndim, interval=0.5)
    sa.write_stack(folder / f"{name}.tif", stack)
    config = AlignmentConfig(
        input=InputSpec(path=str(folder / f"{name}.tif")), output=OutputSpec(folder=str(folder / "out"))
    )
    return sa.run(config, overwrite=True), config


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return made(tmp_path_factory.mktemp("report"), "a <b> movie")


class Page(HTMLParser):
    """Collects what a page is made of, and checks that every tag is closed."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.links, self.names = Counter(), [], [], Counter()
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for key, value in attrs:
            if key in ("src", "href", "xlink:href"):
                self.links.append(value)
            if key == "id":
                self.names[value] += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_needs_nothing_else(ran, tmp_path):
    report.write_report(tmp_path / "report.html", *ran)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert not page.tags["script"]
    assert page.tags["svg"] == 4
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_names_of_different_figures_do_not_meet(ran):
    page = Page(report.render(*ran))
    assert [name for name, count in page.names.items() if count > 1] == []
    assert all(link[1:] in page.names for link in page.links if link.startswith("#"))


def test_the_verdict_comes_first_with_its_number_and_doing_nothing(ran):
    result, _ = ran
    text = report.render(*ran)
    body = text[text.index("<body>") :]
    assert body.index("Steadier than before") < body.index(f"{result.quality.correlation_after:.3f}")
    assert f"{result.quality.correlation_before:.3f} when nothing is done" in body
    for name in result.quality.summary:
        assert name in body
    assert body.index("Steadier") < body.index("<svg")


def test_names_from_outside_are_escaped(ran):
    text = report.render(*ran)
    assert "a &lt;b&gt; movie" in text
    assert "a <b> movie" not in text


def test_motion_is_told_in_pixels_and_physical_units(ran):
    text = report.render(*ran)
    assert "drift (px)" in text
    assert "drift (µm)" in text
    assert "time (s)" in text
    assert re.search(r"drift along y</th><td>-?[\d.]+ to -?[\d.]+ px \(.* µm\)", text)


def test_the_command_repeats_the_run(ran, tmp_path, monkeypatch):
    _, config = ran
    changed = config.model_copy(
        update={
            "reference": "first",
            "input": config.input.model_copy(update={"frames": (1, 5)}),
            "preprocess": config.preprocess.model_copy(update={"region": (4, 40, 6, 60)}),
            "warp": config.warp.model_copy(update={"order": 1, "fill": "edge"}),
            "output": config.output.model_copy(update={"folder": str(tmp_path / "out")}),
        }
    )
    words = shlex.split(report.align_command(changed))
    assert words[:2] == ["stackalign", "align"]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, [*words[1:], "-q"]).exit_code == 0
    again = sa.load_recipe(tmp_path / "out" / "recipe.yaml")
    assert again.model_dump(exclude={"input": {"path"}}) == changed.model_dump(exclude={"input": {"path"}})


@pytest.mark.parametrize(
    "before, after, kind",
    [(0.5, 0.9, "better"), (0.9, 0.9001, "same"), (0.9, 0.8, "worse"), (np.nan, 0.8, "same")],
)
def test_verdict_follows_the_numbers(ran, before, after, kind):
    quality = replace(ran[0].quality, correlation_before=before, correlation_after=after)
    assert report.verdict(quality)[0] == kind
    result = replace(ran[0], quality=quality)
    assert f'<h1 class="{kind}">' in report.render(result, ran[1])


def test_flagged_frames_are_listed_with_their_reasons(ran):
    result, config = ran
    quality = result.registration.quality.with_reasons({3: "too dark & empty"})
    text = report.render(replace(result, registration=replace(result.registration, quality=quality)), config)
    assert "1 of 6 frames is flagged" in text
    assert "too dark &amp; empty" in text
    assert "frame 3, r = " in text


def test_volumes_are_reported_too(tmp_path):
    result, config = made(tmp_path, shape=(4, 24, 32), frames=3)
    Page(report.render(result, config))
    assert "drift along z" in report.render(result, config)


def test_the_same_run_gives_the_same_page(ran):
    assert report.render(*ran) == report.render(*ran)
