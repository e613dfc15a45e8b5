"""Maximum likelihood fits by picasso, run by the Python that has it: its dependencies are not ours.

``python picasso_fits.py patches.npy``: a JSON list on the last line, one entry a model of each of its two fitters.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np


def measured(name, model, work, work_async, count, repeats=5):
    """Return rates a second of one core and of the clock on the wall (all threads), and the centres."""
    found = work()
    core = wall = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        core = min(core, time.process_time() - start)
        start = time.perf_counter()
        fit = work_async()
        while not fit():
            time.sleep(0.002)
        wall = min(wall, time.perf_counter() - start)
    return {
        "name": name,
        "model": model,
        "core": count / core,
        "wall": count / wall,
        "centre": np.asarray(found)[:, [1, 0]].tolist(),
    }


def main(path):
    """Print what each fitter of this picasso does with the patches of a file."""
    warnings.simplefilter("ignore")
    patches = np.ascontiguousarray(np.load(path), np.float32)
    count, size = patches.shape[:2]
    results = []
    try:
        from picasso.fitting import gaussfit, seeds

        for model, code in (
            ("circular", gaussfit.SPHERICAL),
            ("elliptic", gaussfit.ELLIPTIC),
            ("rotated", gaussfit.ROTATED),
        ):
            options = {"rotated": model == "rotated", "spherical": model == "circular"}

            def one(code=code, options=options):
                start = seeds.initial_parameters_gauss(patches, size, **options)
                return gaussfit.fit_spots(code, patches, start, mle=True)[0][:, 1:3]

            def many(code=code, options=options):
                start = seeds.initial_parameters_gauss(patches, size, **options)
                return gaussfit.fit_spots_async(code, patches, start, mle=True).finished

            results.append(measured("gaussfit", model, one, many, count))
    except ImportError:
        pass  # before 0.11
    try:
        from picasso import gaussmle

        for model, method in (("circular", "sigma"), ("elliptic", "sigmaxy")):

            def one(method=method):
                return gaussmle.gaussmle(patches, 1e-3, 100, method)[0][:, :2]

            def many(method=method):
                current = gaussmle.gaussmle_async(patches, 1e-3, 100, method)[0]
                return lambda: current[0] >= count

            results.append(measured("gaussmle", model, one, many, count, 2))
    except ImportError:
        pass  # from 1.0 on
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
