"""Every Python block of README and docs runs, and every shell block of the pages that are written as a walk-through."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stackalign.cli import app

ROOT = Path(__file__).parents[1]
SHELL = {"README.md", "command-line.md", "recipes.md"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^```(?P<tag>[^\n]*)\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Return (tag, text, first line) of every fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(m["tag"].strip(), m["body"], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def runnable(page: Path) -> list[tuple[str, str, int]]:
    tags = {"python", "sh"} if page.name in SHELL else {"python"}
    return [block for block in blocks(page) if block[0] in tags]


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for tag, text, line in runnable(page):
        if tag == "python":
            # blank lines in front: a traceback names the line of the page
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
        else:
            (shell if page.name == "README.md" else commands)(text, f"{page.name}, line {line}", tmp_path)


def shell(text: str, where: str, folder: Path) -> None:
    """Run commands as a user does, each a process of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, f"{where}\n{ended.stdout}\n{ended.stderr}"


def commands(text: str, where: str, folder: Path) -> None:
    """Run commands, ours in this process: they need not start anew each time."""
    for line in filter(None, text.splitlines()):
        if line.startswith("stackalign "):
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{where}: {line}\n{result.output}"
        else:
            shell(line, where, folder)


def test_readme_names_every_command_that_it_needs_and_all_work_from_nothing():
    commands = [
        line for tag, text, _ in blocks(ROOT / "README.md") if tag == "sh" for line in text.splitlines() if line
    ]
    verbs = [line.split()[1] for line in commands]
    assert verbs == ["simulate", "info", "align", "run", "apply"]


def test_links_between_pages_lead_somewhere():
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
    links = [(page, target) for page in PAGES for target in link.findall(page.read_text(encoding="utf-8"))]
    assert not [
        f"{page.relative_to(ROOT)}: {target}"
        for page, target in links
        if "://" not in target and not (page.parent / target).exists()
    ]
