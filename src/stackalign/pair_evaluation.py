"""Try methods on pairs whose truth is known: a row a pair, and a summary with doing nothing beside it.

The truth is looked at only after a method has answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from stackalign.core.deep.pairs import corner_error, corners_of
from stackalign.core.deep.registrar import DeepHomography
from stackalign.core.lucas_kanade.registrar import LucasKanade
from stackalign.core.multimodal.registrar import Multimodal
from stackalign.core.pair import register_pair
from stackalign.core.translation.registrar import CrossCorrelation
from stackalign.core.work import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from stackalign.core.deep.pairs import ImagePair
    from stackalign.core.parameters import Parameters
    from stackalign.core.work import Work
    from stackalign.io.pair_sets import PairSet

PAIR_METHODS: dict[str, type[Parameters]] = {
    "deep": DeepHomography,
    "multimodal": Multimodal,
    "lucas-kanade": LucasKanade,
    "cross-correlation": CrossCorrelation,
}
LIMITS = (1.0, 3.0, 5.0)  # px
NOTHING = "doing nothing"


def try_pairs_work(pairs: PairSet, methods: Mapping[str, Any]) -> Work[pd.DataFrame]:
    """Register every pair by every method.

    Parameters
    ----------
    pairs : PairSet
    methods : mapping of str to method
        Names that the rows carry, and what `register_pair` takes.

    Returns
    -------
    DataFrame
        ``method``, ``group``, ``pair``, ``error_px`` (mean distance of the moving image's corners from the truth; NaN
        where the pair is refused), ``nothing_px`` (the same of the moving image in the middle of the reference),
        ``refused``, ``reason``, ``probability``, ``seconds``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    total = len(pairs) * len(methods)
    for pair in pairs:
        for name, method in methods.items():
            yield Progress(len(rows), total, f"{name}: {pair.group} {pair.name}", table(rows))
            rows.append({"method": name, "group": pair.group, "pair": pair.name, **tried(pair, method)})
    yield Progress(total, total, "Summing up")
    return pd.DataFrame(rows)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame | None:
    """Return rows as a table; None as long as there are none."""
    import pandas as pd

    return pd.DataFrame(rows) if rows else None


def tried(pair: ImagePair, method: Any) -> dict[str, Any]:
    """Register one pair; returns what a row says about it."""
    begun = time.perf_counter()
    found = register_pair(pair.moving, pair.reference, method)
    seconds = time.perf_counter() - begun
    error = np.nan if found.refused else corner_error(found.transform(corners_of(pair.moving.shape)), pair.corners)
    return {
        "error_px": error,
        "nothing_px": corner_error(pair.nothing, pair.corners),
        "refused": found.refused,
        "reason": found.reason,
        "probability": found.probability,
        "seconds": round(seconds, 3),
    }


def summary(trials: pd.DataFrame) -> pd.DataFrame:
    """Sum up trials by method and group, with doing nothing as a method of its own.

    Returns
    -------
    DataFrame
        ``method``, ``group`` ("all": every pair), ``pairs``, ``refused_%``; of the accepted ones ``mean_px``,
        ``std_px``, ``min_px``, ``q25_px``, ``median_px``, ``q75_px``, ``max_px``; of all pairs ``under_1px_%``,
        ``under_3px_%`` and ``under_5px_%``, a refused one counts as not under; ``accepted_under_5px_%``;
        ``worse_than_nothing``: how many accepted pairs.
    """
    import pandas as pd

    still = trials.drop_duplicates(["group", "pair"]).assign(method=NOTHING, refused=False)
    still["error_px"] = still["nothing_px"]
    rows = []
    for name, part in pd.concat([still, trials]).groupby("method", sort=False):
        groups = list(part.groupby("group", sort=False))
        if len(groups) > 1:
            groups.append(("all", part))
        rows += [{"method": name, "group": group, **_numbers(rest)} for group, rest in groups]
    return pd.DataFrame(rows)


def _numbers(part: pd.DataFrame) -> dict[str, Any]:
    errors = part.loc[~part["refused"].astype(bool), "error_px"].to_numpy(float)
    nothing = part.loc[~part["refused"].astype(bool), "nothing_px"].to_numpy(float)
    out: dict[str, Any] = {"pairs": len(part), "refused_%": round(100 * (1 - len(errors) / len(part)), 1)}
    quartiles = np.percentile(errors, (25, 50, 75)) if len(errors) else np.full(3, np.nan)
    several = (np.mean, np.std, np.min)
    values = [float(f(errors)) if len(errors) else np.nan for f in several]
    values += [*quartiles, float(errors.max()) if len(errors) else np.nan]
    names = ("mean", "std", "min", "q25", "median", "q75", "max")
    out |= {f"{name}_px": round(float(value), 3) for name, value in zip(names, values, strict=True)}
    out |= {f"under_{limit:g}px_%": round(100 * float((errors < limit).sum()) / len(part), 1) for limit in LIMITS}
    out["accepted_under_5px_%"] = round(100 * float((errors < 5).mean()), 1) if len(errors) else np.nan
    out["worse_than_nothing"] = int((errors > nothing).sum())
    return out


def reliability(trials: pd.DataFrame, limit: float = 3.0, bins: int = 5) -> pd.DataFrame:
    """Compare what methods promise with what came out.

    Returns
    -------
    DataFrame
        ``method``, ``promised`` (mean probability of a bin), ``found`` (share under ``limit`` pixels), ``pairs``. Pairs
        that are refused or carry no probability are left out.
    """
    import pandas as pd

    rows = []
    known = trials[trials["probability"].notna() & ~trials["refused"].astype(bool)]
    for name, part in known.groupby("method", sort=False):
        which = np.minimum((part["probability"].to_numpy(float) * bins).astype(int), bins - 1)
        for k in np.unique(which):
            chosen = part[which == k]
            rows.append({
                "method": name, "promised": float(chosen["probability"].mean()),
                "found": float((chosen["error_px"] < limit).mean()), "pairs": len(chosen),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "promised", "found", "pairs"])
