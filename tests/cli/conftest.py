from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from stackalign.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call() -> Callable[..., Any]:
    """Run a command in this process; the result has exit_code, stdout and stderr."""

    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A movie of 8 frames, with its truth beside it."""
    path = tmp_path_factory.mktemp("movie") / "movie.tif"
    words = ["simulate", "--set", "frames=8", "--set", "shape=[64, 80]", "--set", "seed=1", "-o", str(path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def start(here: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the real command as a process of its own."""

    def popen(*words: object, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stackalign", *map(str, words)],
            cwd=here,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return popen
