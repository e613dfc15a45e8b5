from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

import stackalign as sa
from stackalign.cli import demo


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.setattr(demo.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_display_it_leaves_result_report_and_picture(call, here, no_display, monkeypatch):
    monkeypatch.setattr(demo, "viewer_screenshot", lambda picture: False)
    result = call("demo", "-o", "demo")
    assert result.exit_code == 0, result.stderr
    assert "report.html" in result.stdout
    assert {"aligned.tif", "report.html", "transforms.json", "screenshot.png"} <= {
        p.name for p in (here / "demo").iterdir()
    }
    truth = sa.load_sample_truth(demo.SAMPLE)
    found = sa.load_transforms("demo/transforms.json").rebased(0)
    assert abs(found.translations - truth.rebased(0).translations).max() < 0.15
    assert (here / "demo" / "screenshot.png").read_bytes().startswith(b"\x89PNG")


def test_with_a_display_napari_is_opened_as_a_program_of_its_own(call, here, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":99")
    pytest.importorskip("napari")
    started = []
    monkeypatch.setattr(
        demo.subprocess, "run", lambda words, **_: started.append(words) or SimpleNamespace(returncode=0)
    )
    assert call("demo").exit_code == 0
    assert started[0][1:] == ["-m", "stackalign.widgets.demo"]
    assert not list(here.iterdir())


def test_a_display_that_does_not_work_is_no_dead_end(call, here, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":99")
    pytest.importorskip("napari")
    monkeypatch.setattr(demo.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-6, stderr="no screen"))
    result = call("demo", "-o", "demo")
    assert result.exit_code == 0, result.stderr
    assert "aligning without it" in result.stderr
    assert (here / "demo" / "screenshot.png").is_file()


def test_a_viewer_that_hangs_is_given_up(tmp_path, monkeypatch, no_display):
    pytest.importorskip("napari")

    def hang(words, **kwargs):
        raise subprocess.TimeoutExpired(words, kwargs["timeout"])

    monkeypatch.setattr(demo.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(demo.subprocess, "run", hang)
    assert not demo.viewer_screenshot(tmp_path / "picture.png")


@pytest.mark.slow
def test_the_viewer_can_be_pictured(tmp_path):
    pytest.importorskip("napari")
    if not (demo.has_display() or demo.shutil.which("xvfb-run")):
        pytest.skip("needs a display or xvfb-run")
    assert demo.viewer_screenshot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 50_000
