"""What a joint alignment left: layers of the low-rank and the sparse part, beside the movie, with fitting contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.widgets._layers import KEY, data_to_physical

if TYPE_CHECKING:
    from napari.layers import Image

    from stackalign.core.lowrank.decomposition import Decomposition
    from stackalign.core.stack import ImageStack
    from stackalign.runs import Run

_LOOKS = 5  # frames from which the contrast is taken


def parts_of(run: Run | None) -> Decomposition | None:
    """Return the decomposition of a run; None if its method has none, or its transforms were changed since."""
    parts: Decomposition | None = None if run is None else run.registration.details.get("decomposition")
    if (
        run is None
        or parts is None
        or not np.array_equal(parts.transforms.matrices, run.registration.transforms.matrices)
    ):
        return None
    return parts


def part_layers(run: Run, layer: Image) -> list[Image]:
    """Return layers "movie [low-rank]" and "movie [sparse]", in the place of the movie, computed as they are looked at.

    The sparse part is shown in a diverging colormap, centred on zero.

    Raises
    ------
    ValueError
        If the run left no such parts.
    """
    parts = parts_of(run)
    if parts is None:
        raise ValueError("this result has no low-rank and sparse part: align with REALS first")
    low, sparse = _range(parts.low_rank), _range(parts.sparse)
    reach = max(abs(sparse[0]), abs(sparse[1]))
    return [
        _layer(run, layer, parts.low_rank, "low-rank", low, "gray"),
        _layer(run, layer, parts.sparse, "sparse", (-reach, reach), "PiYG"),
    ]


def _layer(run: Run, layer: Image, stack: ImageStack, kind: str, limits: tuple[float, float], colormap: str) -> Image:
    from napari.layers import Image

    letters = run.movie.axes.replace("s", "")
    kept = "t" + "zyx"[-stack.ndim :]
    start = np.zeros(len(letters))
    start[letters.index("t")] = run.first
    corner = (data_to_physical(layer) @ np.append(start, 1.0))[:-1]
    chosen = [letters.index(a) for a in kept]
    place: dict[str, Any] = {
        "scale": np.asarray(layer.scale)[chosen],
        "translate": corner[chosen],
        "units": [layer.units[k] for k in chosen],
        "axis_labels": [layer.axis_labels[k] for k in chosen],
    }
    if kept == letters:
        place |= {"rotate": layer.rotate, "shear": layer.shear, "affine": layer.affine.affine_matrix.copy()}
    return Image(
        stack.frames,
        name=f"{layer.name} [{kind}]",
        colormap=colormap,
        contrast_limits=limits,
        metadata={KEY: {"aligned_from": layer.name, "axes": kept, "provenance": dict(run.registration.provenance)}},
        **place,
    )


def _range(stack: ImageStack) -> tuple[float, float]:
    """Return what all but the faintest and brightest pixels of some frames lie between."""
    frames = [np.asarray(stack[int(t)]) for t in np.linspace(0, len(stack) - 1, min(len(stack), _LOOKS)).round()]
    values = np.concatenate([f[np.isfinite(f)] for f in frames])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.2, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)
