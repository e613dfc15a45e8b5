"""Correct the drift of a bead movie, and compare with the truth that ships beside it.

Run it anywhere: ``python drift_of_beads.py``. It writes ``drift_of_beads.png``.
"""

import numpy as np
from matplotlib.figure import Figure

import stackalign as sa

stack = sa.load_sample("drifting_beads")
truth = sa.load_sample_truth("drifting_beads")

result = sa.register(stack, sa.CrossCorrelation())
fixed = sa.warp(stack, result.transforms, crop="valid")
print(sa.measure(stack, result.transforms).sentence)

error = result.transforms.translations - truth.translations
error -= error.mean(axis=0)
estimated = np.nanmean(result.quality.error)
print(f"error against the truth: {np.sqrt(np.mean(error**2)):.4f} px rms, estimated {estimated:.4f}")

figure = Figure(figsize=(9, 3), layout="constrained")
before, after, plot = figure.subplots(1, 3)
before.imshow(stack.asarray().mean(axis=0), cmap="gray")
before.set_title("mean before")
after.imshow(fixed.asarray().mean(axis=0), cmap="gray")
after.set_title("mean after")
plot.plot(-result.transforms.translations, label=["y", "x"])
plot.set(xlabel="frame", ylabel="drift (px)")
plot.legend()
figure.savefig("drift_of_beads.png", dpi=120)
