"""Joint alignment by plain gradient steps, as first published: kept for comparison, with its limits.

Cho et al., WACV 2023: minimise ``|| X(tau) - X(tau) W^T W ||_1`` over a linear layer W (k x P) and one 2 x 3 matrix a
frame in normalised coordinates, with Adam (learning rates 1e-4 and 1e-3), 2000 steps, all frames at once, zeros outside
the field. What that costs is on the method's page; the solver "gauss-newton" has none of these limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.deep.requirement import choose_device
from stackalign.core.frames.frame_check import read_frame
from stackalign.core.lowrank.decomposition import Decomposition
from stackalign.core.lowrank.device import imported_torch
from stackalign.core.references.reference import PairResult, Reference
from stackalign.core.run_state import RunState
from stackalign.core.transform import TransformModel
from stackalign.core.warping.resample import warp_frame
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackalign.core.lowrank.registrar import Reals
    from stackalign.core.registration import Registration
    from stackalign.core.stack import ImageStack
    from stackalign.core.work import Work

STEPS = 2000
_RATE_BASIS, _RATE_MOTION = 1e-4, 1e-3
_REPORT = 10  # steps between two reports
_MODELS = (TransformModel.TRANSLATION, TransformModel.EUCLIDEAN, TransformModel.AFFINE)


def fit_adam(
    parameters: Reals, stack: ImageStack, anchor: int | str | None, mask: NDArray[np.bool_] | None
) -> Work[Registration]:
    """Align a stack of images; parameters and errors as for `Reals.fit`.

    Raises
    ------
    ImportError
        If torch is not installed.
    ValueError
        For volumes, a mask, or a model other than translation, euclidean and affine: the published method has none.
    """
    torch = imported_torch("the solver 'adam'", "'gauss-newton'")
    if stack.ndim != 2 or parameters.model not in _MODELS:
        raise ValueError("the solver 'adam' aligns images by translation, euclidean or affine: take 'gauss-newton'")
    if mask is not None:
        raise ValueError("the solver 'adam' knows no region: take 'gauss-newton'")
    named: Any = _Named(parameters.model)
    run = RunState(stack, named, Reference("mean"), anchor, None)
    device = choose_device(parameters.device)
    frames, usable = [], []
    for t in range(len(stack)):
        frame, reason = read_frame(stack, t)
        if reason:
            run.results[t] = PairResult.failed(2, reason)
        else:
            usable.append(t)
            image = np.asarray(frame, np.float32)
            frames.append(np.where(np.isfinite(image), image, np.float32(0)))
    if len(usable) < 2:
        return run.registration()
    top = float(max(f.max() for f in frames)) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        x = torch.as_tensor(np.stack(frames)[:, None] / top, device=device)
        layer = torch.nn.Linear(x[0].numel(), parameters.rank or 1, bias=False).to(device)
    motion = torch.zeros((len(usable), 6), device=device, requires_grad=True)
    optimiser = torch.optim.Adam(
        [{"params": layer.parameters(), "lr": _RATE_BASIS}, {"params": [motion], "lr": _RATE_MOTION}]
    )
    losses: list[float] = []
    steps = parameters.iterations or STEPS
    for step in range(steps):
        optimiser.zero_grad()
        theta = _theta(torch, motion, parameters.model)
        grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
        rows = torch.nn.functional.grid_sample(x, grid, align_corners=False).flatten(1)
        loss = (rows - layer(rows) @ layer.weight).abs().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()) * top)
        if step % _REPORT == 0 or step == steps - 1:
            _take(run, usable, theta.detach().cpu().numpy().astype(float), stack.frame_shape)
            yield Progress(step + 1, steps, "Joint alignment by gradient steps", run.registration())
    run.details |= {"loss": tuple(losses), "rounds": steps, "rank": parameters.rank or 1}
    result = run.registration()
    weight = layer.weight.detach().cpu().numpy().reshape(-1, *stack.frame_shape)
    coefficients = np.zeros((len(stack), len(weight)))
    with torch.no_grad():
        coefficients[usable] = layer(rows).cpu().numpy() * top
    known = np.ones(stack.frame_shape, bool)
    first = usable[0]
    home = result.transforms.matrices[first] @ np.linalg.inv(_first_matrix(theta, stack.frame_shape))
    basis = np.stack([warp_frame(np.ascontiguousarray(w, np.float32), home, fill="edge") for w in weight])
    parts = Decomposition(basis, coefficients, known, stack, result.transforms)
    return type(result)(result.transforms, result.quality, {**result.details, "decomposition": parts})


class _Named:
    """Stands where a `RunState` asks an aligner for its model."""

    def __init__(self, model: TransformModel) -> None:
        self.model = model

    def filtered(self, frame: NDArray[Any]) -> NDArray[Any]:
        return frame


def _theta(torch: Any, motion: Any, model: TransformModel) -> Any:
    """Return (T, 2, 3) matrices over normalised (x, y, 1), output -> input, as torch's grids take them."""
    one, zero = torch.ones_like(motion[:, 0]), torch.zeros_like(motion[:, 0])
    if model is TransformModel.AFFINE:
        a, b, c, d = one + motion[:, 0], motion[:, 1], motion[:, 3], one + motion[:, 4]
    elif model is TransformModel.EUCLIDEAN:
        a, b = torch.cos(motion[:, 0]), -torch.sin(motion[:, 0])
        c, d = -b, a
    else:
        a, b, c, d = one, zero, zero, one
    return torch.stack([torch.stack([a, b, motion[:, 2]], 1), torch.stack([c, d, motion[:, 5]], 1)], 1)


def _matrix(theta: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the matrix moving -> reference, (y, x) pixels, of a normalised one in x, y, reference -> moving."""
    h, w = shape
    normal = np.array([[0, 2 / w, 1 / w - 1], [2 / h, 0, 1 / h - 1], [0, 0, 1.0]])  # (y, x) pixels -> (x, y) in -1 .. 1
    whole = np.vstack([theta, [0, 0, 1]])
    return np.asarray(np.linalg.inv(np.linalg.inv(normal) @ whole @ normal))


def _first_matrix(theta: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return _matrix(theta[0].detach().cpu().numpy().astype(float), shape)


def _take(run: RunState, usable: list[int], theta: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    for k, t in enumerate(usable):
        nan = np.full(2, np.nan)
        run.results[t] = PairResult(_matrix(theta[k], shape), np.nan, np.nan, 1.0, nan)
