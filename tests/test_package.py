"""The wheel and the sdist, installed into a new environment, give a working plugin."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROBE = """
import json, sys, stackalign
from importlib.metadata import distribution
from npe2 import PluginManifest
manifest = PluginManifest.from_distribution("stackalign")
c = manifest.contributions
print(json.dumps({
    "where": stackalign.__file__,
    "widgets": [w.display_name for w in c.widgets or []],
    "readers": len(c.readers or []),
    "writers": len(c.writers or []),
    "samples": [s.key for s in c.sample_data or []],
    "sample_files": sorted(p.name for p in __import__("stackalign.samples").samples.sample_folder().iterdir()),
    "scripts": [e.name for e in distribution("stackalign").entry_points if e.group == "console_scripts"],
}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "-o", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def probe(python: Path, cwd: Path) -> dict:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_plugin_from_distribution(built: Path, tmp_path: Path, kind: str) -> None:
    (artifact,) = built.glob(f"*.{kind}")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    # the dependencies are those of this environment: what is tested is our artifact, not the registry
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = [p for p in sys.path if p.endswith("site-packages")]
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", str(artifact)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(here)},
    )
    assert done.returncode == 0, done.stderr
    # .pth lines come after the environment's own packages, and the editable install's finder is left out
    (Path(site) / "deps.pth").write_text("\n".join(here) + "\n")
    found = probe(python, tmp_path)
    assert found["where"].startswith(str(tmp_path)), "the artifact itself must be imported, not the checkout"
    assert "Align stack" in found["widgets"]
    assert found["readers"] >= 1
    assert found["writers"] >= 1
    assert len(found["samples"]) >= 3
    assert any(name.endswith(".tif") for name in found["sample_files"])
    assert found["scripts"] == ["stackalign"]


def test_manifest_at_the_root_is_the_packaged_one() -> None:
    link = ROOT / "napari.yaml"
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.read_bytes() == (ROOT / "src" / "stackalign" / "napari.yaml").read_bytes()
