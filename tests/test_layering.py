"""What importing loads, what the package promises by name, and what every parameter says about itself."""

import inspect
import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from typing import Literal, get_args, get_origin

import pytest

import stackalign

# networks, and joint alignment on a graphics card: parts that need the extra [torch]
NEED_TORCH = ("stackalign.core.deep", "stackalign.core.lowrank.on_device")
HEAVY = ("napari", "qtpy", "PyQt6", "PySide6", "torch", "matplotlib", "numba", "skimage", "pandas", "tifffile", "dask")
HEADLESS = ("napari", "qtpy", "PyQt6", "PySide6", "superqt", "magicgui", "vispy", "pyqtgraph")


def loaded_by(code):
    """Return the names of top-level modules that a fresh interpreter has loaded after ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules(*, but=()):
    """Return the names of all modules of the package outside the folders ``but``."""
    found = pkgutil.walk_packages(stackalign.__path__, "stackalign.", onerror=lambda name: None)
    return sorted(m.name for m in found if m.name.split(".")[1] not in but and not m.name.endswith("__main__"))


@pytest.fixture(scope="module")
def namespace():
    return {name: getattr(stackalign, name) for name in stackalign.__all__}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import stackalign; dir(stackalign); stackalign.__version__") & set(HEAVY)


def test_reading_and_writing_loads_no_viewer_and_no_network():
    code = (
        "import numpy as np, stackalign as sa\n"
        "s = sa.TransformSeries.from_translations(np.zeros((2, 2)))\n"
        "stack = sa.ImageStack(np.zeros((2, 4, 5), np.uint8)); sa.read_stack, sa.write_stack, sa.save_transforms\n"
    )
    assert not loaded_by(code) & {*HEADLESS, "torch", "matplotlib", "skimage"}


def test_every_public_name_resolves(namespace):
    assert set(namespace) == set(stackalign.__all__) == {*stackalign._HOME, "__version__"}
    assert set(stackalign.__all__) <= set(dir(stackalign))
    for name, home in stackalign._HOME.items():
        assert hasattr(import_module(f"stackalign.{home}"), name)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        stackalign.no_such_name  # noqa: B018


def test_type_checkers_see_every_public_name():
    source = inspect.getsource(stackalign)
    lacking = [n for n, home in stackalign._HOME.items() if f"from stackalign.{home} import {n} as {n}" not in source]
    assert lacking == []


def test_every_public_callable_says_what_it_does(namespace):
    silent = []
    for name, value in namespace.items():
        if not callable(value):
            continue
        if not inspect.getdoc(value):
            silent.append(name)
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if attribute.startswith("_") or not (callable(member) or isinstance(member, property | classmethod)):
                    continue
                if not inspect.getdoc(member):
                    silent.append(f"{name}.{attribute}")
    assert silent == []


def records():
    """Return every record of parameters in the package."""
    from stackalign.core.parameters import Parameters

    for name in modules(but=("widgets", "samples")):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != "torch" or not name.startswith(NEED_TORCH):
                raise
    found, pending = set(), [Parameters]
    while pending:
        below = pending.pop().__subclasses__()
        found |= set(below)
        pending += below
    return sorted((r for r in found if r.__module__.startswith("stackalign.")), key=lambda r: r.__qualname__)


def is_tag(field):
    """Tell whether a field can have but one value: the name of a method, which nobody sets."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def test_every_parameter_has_a_title_and_a_description():
    silent = [
        f"{record.__module__}.{record.__qualname__}.{name}"
        for record in records()
        for name, field in record.model_fields.items()
        if not (field.title and field.description) and not is_tag(field)
    ]
    assert silent == []


def test_every_parameter_record_refuses_unknown_names_and_changes():
    for record in records():
        assert record.model_config.get("frozen"), record
        assert record.model_config.get("extra") == "forbid", record
        assert record.__doc__, record


def test_modules_import_without_a_viewer():
    code = "from importlib import import_module\n" + "\n".join(
        f"import_module({name!r})" for name in modules(but=("widgets",)) if not name.startswith(NEED_TORCH)
    )
    assert not loaded_by(code) & set(HEADLESS)
