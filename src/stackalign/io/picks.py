"""Read and write picked particles: `picks.json`, and both versions of the scripts' `particle_selections.json`.

Boxes of `particle_selections.json` are ``[x0, y0, x1, y1]``, half-open, all drawn in the first image of a folder; the
first version holds a list of image sets, the second one set. Boxes here are ``(y0, y1, x0, x1)``.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stackalign.core.spots.picks import Pick, numbered
from stackalign.io.atomic import replacing
from stackalign.io.errors import ImageSetChoiceError, PicksReadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from stackalign.core.spots.gaussian import SpotFit

FORMAT = "stackalign-picks"


def read_picks(path: str | PathLike[str], *, image_set: int | str | None = None) -> tuple[Pick, ...]:
    """Read picked particles.

    Parameters
    ----------
    path : path
        A file of `write_picks`, or a ``particle_selections.json`` of either version.
    image_set : int or str, optional
        Which image set of a version 1 selection file, by its number from 0 or the name of its folder; needed only where
        it holds several.

    Returns
    -------
    tuple of Pick
        In the file's order, with the file's numbers.

    Raises
    ------
    PicksReadError
        If the file is missing, corrupt or foreign: the message names the file and what is wrong. An
        `ImageSetChoiceError` if it holds several image sets and none of them was chosen.
    """
    source = Path(path).expanduser()
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PicksReadError(f"there is no file {source}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PicksReadError(f"{source} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise PicksReadError(f"{source} is no JSON: line {error.lineno}, {error.msg}; is the file complete?") from error
    if not isinstance(data, dict):
        raise PicksReadError(f"{source} holds no picked particles: it is a JSON {type(data).__name__}, not an object")
    try:
        picks = _own(data) if data.get("format") == FORMAT else _selections(data, image_set)
        if not picks:
            raise ValueError("no particle is picked in it")
        return numbered(picks)
    except _ChoiceError as error:
        raise ImageSetChoiceError(f"{source} {error}", error.choices) from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"the entry {error} is missing" if isinstance(error, KeyError) else _first_line(error)
        raise PicksReadError(f"{source} holds no picked particles that can be read: {what}") from error


def write_picks(path: str | PathLike[str], picks: Sequence[Pick]) -> Path:
    """Write picked particles as JSON.

    Raises
    ------
    StackWriteError
        If the file cannot be written; the old one stands.
    """
    target = Path(path).expanduser()
    data = {
        "format": FORMAT,
        "version": 1,
        "bounds": "y0, y1, x0, x1 (z0, z1 first in 3-D), half-open, px",
        "picks": [{"id": p.id, "frame": p.frame, "bounds": list(p.bounds)} for p in picks],
    }
    _write(target, data)
    return target


def write_selections(
    path: str | PathLike[str],
    picks: Sequence[Pick],
    *,
    folder: str | PathLike[str],
    first_image: str,
    total_images: int,
    image_shape: Sequence[int],
    fits: Mapping[int, SpotFit] | None = None,
    version: Literal[1, 2] = 2,
    chosen: Sequence[int] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a ``particle_selections.json`` that the particle scripts read.

    Parameters
    ----------
    path : path
        The file.
    picks : sequence of Pick
        2-D boxes, all drawn in frame 0: the scripts know no other frame.
    folder : path
        Folder of the images.
    first_image : str
        Name of its first image.
    total_images : int
        How many images it holds.
    image_shape : sequence of int
        (y, x).
    fits : mapping of int to SpotFit, optional
        The fit of each particle by its number; R² and centre are left out for a particle without one.
    version : 1 or 2
        A list of image sets, or one image set.
    chosen : sequence of int, optional
        Particles chosen for the drift (version 2); all if None.
    more : mapping, optional
        Further entries of the image set, such as the paths of tables that belong to it.

    Raises
    ------
    ValueError
        If a pick is not 2-D or lies in another frame.
    StackWriteError
        If the file cannot be written; the old one stands.
    """
    particles: list[dict[str, Any]] = []
    for pick in picks:
        if len(pick.bounds) != 4 or pick.frame != 0:
            raise ValueError(f"particle {pick.id} cannot stand in a selection file: it needs a 2-D box in frame 0")
        y0, y1, x0, x1 = pick.bounds
        entry: dict[str, Any] = {"bbox": [x0, y0, x1, y1], "particle_id": pick.id}
        if fits is not None and pick.id in fits:
            fit = fits[pick.id]
            entry |= {"test_fit_r_squared": fit.r_squared, "test_center_x": fit.x, "test_center_y": fit.y}
        particles.append(entry)
    now = datetime.now()
    one: dict[str, Any] = {
        "folder_path": str(folder),
        "selected_particles": particles,
        "timestamp": now.strftime("%Y-%m-%d_%H:%M:%S"),
        "first_image": first_image,
        "total_images": int(total_images),
        "image_shape": [int(n) for n in image_shape],
    }
    one |= more or {}
    created = now.strftime("%Y-%m-%d %H:%M:%S")
    if version == 1:
        data: dict[str, Any] = {"image_sets": [one], "total_sets": 1, "created": created}
    else:
        one["selected_particles_for_drift"] = [int(k) for k in ([p.id for p in picks] if chosen is None else chosen)]
        data = {"image_set": one, "created": created, "last_modified": created}
    target = Path(path).expanduser()
    _write(target, data)
    return target


def _own(data: Mapping[str, Any]) -> list[Pick]:
    if data.get("version") != 1:
        raise ValueError(f"picks of version {data.get('version')!r} are not known; this program reads version 1")
    return [Pick(id=p["id"], frame=p["frame"], bounds=p["bounds"]) for p in data["picks"]]


class _ChoiceError(Exception):
    """Image sets to choose from."""

    def __init__(self, message: str, choices: tuple[str, ...]) -> None:
        super().__init__(message)
        self.choices = choices


def _selections(data: Mapping[str, Any], image_set: int | str | None) -> list[Pick]:
    if "image_set" in data:
        one = data["image_set"]
    elif "image_sets" in data:
        one = _chosen(data["image_sets"], image_set)
    else:
        raise ValueError("it has neither 'picks' nor 'image_set' nor 'image_sets'")
    picks: list[Pick] = []
    for k, particle in enumerate(one["selected_particles"], start=1):
        box = particle["bbox"]
        if len(box) != 4:
            raise ValueError(f"the box of particle {particle.get('particle_id', k)} has {len(box)} numbers, not 4")
        x0, y0, x1, y1 = (round(float(b)) for b in box)
        picks.append(Pick(id=int(particle.get("particle_id", k)), frame=0, bounds=(y0, y1, x0, x1)))
    return picks


def _chosen(sets: Sequence[Mapping[str, Any]], image_set: int | str | None) -> Mapping[str, Any]:
    """Return one of several image sets, named by its number or its folder."""
    if not sets:
        raise ValueError("it holds no image set")
    folders = [Path(str(one.get("folder_path", k)).replace("\\", "/")) for k, one in enumerate(sets)]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):  # as "exported" in every folder of an experiment
        names = ["/".join(folder.parts[-2:]) for folder in folders]
    if image_set is None and len(sets) == 1:
        return sets[0]
    for k, name in enumerate(names):
        if image_set is not None and image_set in (name, k, str(k)):
            return sets[k]
    words = ", ".join(f"{k}: {name}" for k, name in enumerate(names))
    wrong = "" if image_set is None else f", none of them {image_set!r}"
    raise _ChoiceError(f"holds {len(sets)} image sets{wrong}: choose one with image_set= ({words})", tuple(names))


def _first_line(error: Exception) -> str:
    """Return what a user needs of an error: a validation error spreads over lines."""
    errors = getattr(error, "errors", None)
    if callable(errors):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors())
    return str(error)


def _write(target: Path, data: Mapping[str, Any]) -> None:
    with replacing(target) as part:
        part.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
