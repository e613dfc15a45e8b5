"""What users would take instead, each with its usual settings: how each aligns one frame to another."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Align = Callable[[np.ndarray, np.ndarray], np.ndarray]
_SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


class Absent(Exception):
    """A peer that is not installed, or has no such model."""


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"not installed ({error})") from None


def _from_xy(pull: np.ndarray) -> np.ndarray:
    """Return moving -> reference in y, x of a matrix reference -> moving in x, y."""
    full = np.eye(3)
    full[: len(pull)] = pull
    return np.linalg.inv(_SWAP @ full @ _SWAP)


def skimage(model: str, _shape: tuple[int, ...]) -> Align:
    if model != "translation":
        raise Absent("translation only")
    from skimage.registration import phase_cross_correlation

    def align(reference: np.ndarray, moving: np.ndarray) -> np.ndarray:
        shift = phase_cross_correlation(reference, moving, upsample_factor=20, normalization=None)[0]
        matrix = np.eye(len(shift) + 1)
        matrix[:-1, -1] = shift
        return matrix

    return align


def stackreg(model: str, shape: tuple[int, ...]) -> Align:
    module = _need("pystackreg")
    if len(shape) != 2 or model == "projective":
        raise Absent("2-D, up to affine")
    kinds = {
        "translation": module.StackReg.TRANSLATION,
        "euclidean": module.StackReg.RIGID_BODY,
        "similarity": module.StackReg.SCALED_ROTATION,
        "affine": module.StackReg.AFFINE,
    }
    sr = module.StackReg(kinds[model])
    return lambda reference, moving: _from_xy(sr.register(reference, moving))


def opencv(model: str, shape: tuple[int, ...]) -> Align:
    cv2 = _need("cv2")
    if len(shape) != 2:
        raise Absent("2-D only")
    kinds = {
        "translation": cv2.MOTION_TRANSLATION,
        "euclidean": cv2.MOTION_EUCLIDEAN,
        "affine": cv2.MOTION_AFFINE,
        "projective": cv2.MOTION_HOMOGRAPHY,
    }
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-8)

    def align(reference: np.ndarray, moving: np.ndarray) -> np.ndarray:
        ref, mov = (np.asarray(a, np.float32) for a in (reference, moving))
        h, w = ref.shape
        start = np.eye(3, dtype=np.float32)
        small = [cv2.resize(a, (w // 4, h // 4), interpolation=cv2.INTER_AREA) for a in (ref, mov)]
        (dx, dy), _ = cv2.phaseCorrelate(*(s.astype(np.float64) for s in small))
        start[:2, 2] = dx * 4, dy * 4
        warp = start if kinds[model] == cv2.MOTION_HOMOGRAPHY else start[:2].copy()
        _, found = cv2.findTransformECC(ref, mov, warp, kinds[model], stop, None, 5)
        return _from_xy(np.asarray(found, float))

    return align


def simpleitk(model: str, shape: tuple[int, ...]) -> Align:
    sitk = _need("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    d = len(shape)
    if model not in ("translation", "euclidean", "affine") or (d == 3 and model != "translation"):
        raise Absent("translation, euclidean and affine only")

    def align(reference: np.ndarray, moving: np.ndarray) -> np.ndarray:
        fixed, other = (sitk.GetImageFromArray(np.asarray(a, np.float32)) for a in (reference, moving))
        start = {
            "translation": lambda: sitk.TranslationTransform(d),
            "euclidean": lambda: sitk.Euler2DTransform(),
            "affine": lambda: sitk.AffineTransform(2),
        }[model]()
        if model != "translation":
            start.SetCenter([(n - 1) / 2 for n in shape[::-1]])
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMeanSquares()
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, 0.5)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInterpolator(sitk.sitkBSpline)
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
        method.SetInitialTransform(start, inPlace=True)
        method.Execute(fixed, other)
        at = np.vstack([np.zeros(d), np.eye(d)])
        to = np.array([start.TransformPoint(p.tolist()) for p in at])  # reference -> moving, x first
        pull = np.eye(d + 1)
        pull[:d, d], pull[:d, :d] = to[0], (to[1:] - to[0]).T
        flip = np.eye(d + 1)
        flip[:d, :d] = np.eye(d)[::-1]
        return np.linalg.inv(flip @ pull @ flip)

    return align


PEERS: dict[str, Callable[[str, tuple[int, ...]], Align]] = {
    "scikit-image (upsample 20)": skimage,
    "StackReg (pystackreg)": stackreg,
    "OpenCV ECC": opencv,
    "SimpleITK (mean squares)": simpleitk,
}


def timed(align: Align, movie: np.ndarray, seconds: float) -> tuple[dict[int, np.ndarray], float, float]:
    """Align frames, spread over the movie, to its first one until the time is up; wall and CPU seconds a frame too."""
    order = np.unique(np.linspace(1, len(movie) - 1, min(len(movie) - 1, 40)).astype(int))
    order = np.random.default_rng(0).permutation(order)
    reference = movie[0].astype(np.float64)
    align(reference, movie[order[0]].astype(np.float64))  # what is loaded on the first call does not count
    found: dict[int, np.ndarray] = {0: np.eye(movie.ndim)}
    begun, busy = time.perf_counter(), time.process_time()
    for t in order:
        try:
            found[int(t)] = align(reference, movie[t].astype(np.float64))
        except Exception:  # a peer that does not converge says so by an exception of its own
            found[int(t)] = np.eye(movie.ndim)
        if time.perf_counter() - begun > seconds and len(found) > 3:
            break
    done = len(found) - 1
    return found, (time.perf_counter() - begun) / done, (time.process_time() - busy) / done
