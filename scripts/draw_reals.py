"""Draw the pictures of docs/methods/reals.md: ``python scripts/draw_reals.py``, 20 seconds, the same every time."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import stackalign as sa

FOLDER = Path(__file__).parents[1] / "docs/methods/images"
FRAME = 7


def parts() -> None:
    """One frame of a shaken movie that flickers, and what becomes of it."""
    stack, truth = sa.simulate(
        scene="cells", shape=(200, 200), frames=16, motion="uniform", model="euclidean", amplitude=8, rotation=8,
        photons=800, spots=300, contrast=1.5, flicker=0.1, seed=2,
    )  # fmt: skip
    frames = sa.ImageStack(stack.asarray())
    result = sa.register(frames, sa.Reals())
    found = result.details["decomposition"]
    moved, still = frames.asarray().mean(0), np.nanmean(found.aligned.asarray(), axis=0)
    images = {
        "mean of the input": moved,
        "mean of the aligned frames": still,
        f"aligned, frame {FRAME}": found.aligned[FRAME],
        f"low-rank, frame {FRAME}": found.low_rank[FRAME],
        f"sparse, frame {FRAME}": found.sparse[FRAME],
    }
    low, high = np.nanpercentile(found.low_rank[FRAME], (1, 99.5))
    figure = Figure(figsize=(11, 2.5), layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        reach = high - low
        limits = (-reach, reach) if title.startswith("sparse") else (low, high)
        axes.imshow(image, cmap="RdBu_r" if title.startswith("sparse") else "gray", vmin=limits[0], vmax=limits[1])
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    figure.savefig(FOLDER / "reals-parts.png", dpi=80)
    print(f"corners within {truth.error(result.transforms).max():.3f} px")


def weights() -> None:
    """How much a residual says, and the residual around one lit cell."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    a = np.linspace(0, 12, 400)
    for name, tail in (("huber", np.inf), ("redescending", 3 * 1.345)):
        far = tail / np.maximum(a, tail) if np.isfinite(tail) else 1.0
        left.plot(a, np.minimum(a, 1.345) * far**2, label=name)
    left.set_xlabel("residual / its standard deviation")
    left.set_ylabel("influence")
    left.legend(frameon=False)
    x = np.linspace(-14, 14, 400)
    light = 2 / (1 + np.exp((np.abs(x) - 6) / 0.7)) / 0.03
    right.semilogy(x, light, color="black", label="a lit cell")
    right.axhline(3 * 1.345, ls="--", color="gray", label="clearly something else")
    edge = x[light > 3 * 1.345].max()
    for sign in (-1, 1):
        right.axvspan(*sorted((sign * edge, sign * (edge + 2))), color="tab:orange", alpha=0.4)
    right.set_ylim(0.1, 200)
    right.set_xlabel("pixels")
    right.set_ylabel("the same")
    right.legend(frameon=False, loc="lower center", fontsize=7)
    figure.savefig(FOLDER / "reals-weights.png", dpi=100)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    parts()
    weights()
