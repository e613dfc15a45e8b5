"""The same call gives the same bits, whether this process compiled the kernels or read them from the cache."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stackalign

CORE = Path(stackalign.__file__).parent / "core"
PROGRAM = """
import hashlib
import numpy as np
import stackalign as sa

rng = np.random.default_rng(0)
yx = np.mgrid[:48, :64]
scene = sum(np.exp(-((yx[0] - y) ** 2 + (yx[1] - x) ** 2) / 8.0) for y, x in rng.uniform(8, 40, (12, 2)))
frames = np.stack([np.roll(scene, k, (0, 1)) for k in range(5)]) * 900 + rng.normal(100, 5, (5, 48, 64))
found = sa.register(frames.astype(np.float32), sa.CrossCorrelation(), reference="mean")
print(hashlib.sha256(found.transforms.matrices.tobytes()).hexdigest())
"""


Name = tuple[str, str]  # of a module and of a function in it


def compiled_functions() -> dict[Name, tuple[str, set[Name]]]:
    """Return the decorator of every compiled function and what it calls."""
    found = {}
    for path in CORE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        module = ".".join(("stackalign", *path.relative_to(CORE.parent).with_suffix("").parts))
        home = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            marks = [m.id for m in getattr(node, "decorator_list", ()) if isinstance(m, ast.Name)]
            if isinstance(node, ast.FunctionDef) and any(home.get(m, ("",))[0].endswith(".compiled") for m in marks):
                calls = {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
                found[module, node.name] = marks[0], {home.get(name, (module, name)) for name in calls}
    return found


def test_fast_code_that_a_kernel_calls_is_inlined() -> None:
    functions = compiled_functions()
    assert len(functions) > 60
    fast = {name for name, (mark, _) in functions.items() if mark.startswith("fast_")}
    while more := {name for name, (_, calls) in functions.items() if calls & fast} - fast:
        fast |= more
    called = set().union(*(calls for _, calls in functions.values()))
    assert [name for name in fast & called if not functions[name][0].endswith("inlined")] == []


def test_what_is_written_into_its_caller_stays_exact() -> None:
    """An inlined part takes the flags of its caller: within a fast one its tests for NaN would be left out."""
    functions = compiled_functions()
    called = {name for mark, calls in functions.values() if mark.startswith("fast_") for name in calls}
    assert [name for name in called if functions.get(name, ("",))[0] == "inlined"] == []


@pytest.mark.slow
def test_the_first_start_gives_the_bits_of_the_second(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert len(first) > 64
    assert first == second
