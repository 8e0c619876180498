"""LiRA: the likelihood of an example's score with it in the data, over that without, by shadow models.

Source: Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, "Membership inference attacks from first principles"
(arXiv 2112.03570). With few shadows the spread is shared by all examples, as their section on it advises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.audit.attacks import Attack, Attacked, Observed
from sfumato.audit.attacks._scores import judge
from sfumato.core.errors import InvalidRequest

SUMMARY = "likelihood ratio per example by shadow models: strong, and each shadow is a training of its own"
NEEDS = ("scipy",)
EXTRA = ""

KINDS = ("online", "offline")


def build(kind: Literal["online", "offline"] = "online", own_spread: int = 32) -> Attack:
    """Build the attack.

    Args:
        kind: "online" compares shadows with and without the example; "offline" uses those without it alone.
        own_spread: from so many shadows on each side on, each example has a spread of its own.

    Raises:
        InvalidRequest: another kind.
    """
    if kind not in KINDS:
        raise InvalidRequest(f"LiRA is {' or '.join(KINDS)}, got {kind!r}")
    return _Lira(kind, own_spread)


@dataclass(frozen=True, slots=True)
class _Lira:
    kind: str
    own_spread: int
    name: str = "lira"

    def run(self, observed: Observed, *, delta: float = 0.0, confidence: float = 0.95) -> Attacked:
        scores, member = observed.shadow_scores, observed.shadow_member
        if scores is None or member is None:
            raise InvalidRequest(
                "LiRA needs shadow models: give shadow_scores and shadow_member, or run 'membership'"
            )
        if self.kind == "online":
            inside, outside = _both_sides(scores, member, self.own_spread)
            ratio = _log_density(observed.scores, *inside) - _log_density(observed.scores, *outside)
        else:
            mean, spread = _fit(scores, ~member, self.own_spread)
            _require(np.isfinite(mean), "in all shadows")
            ratio = (observed.scores - mean) / spread
        return judge(self.name, ratio, observed, delta, confidence)


Fit = tuple[NDArray[np.float64], NDArray[np.float64]]


def _both_sides(scores: NDArray[np.float64], member: NDArray[np.bool_], own_spread: int) -> tuple[Fit, Fit]:
    """Return mean and spread with each example and without; a side that few shadows left out, by the gap."""
    inside, outside = _fit(scores, member, own_spread), _fit(scores, ~member, own_spread)
    known = np.isfinite(inside[0]) & np.isfinite(outside[0])
    if not known.any():
        _require(known, "in all shadows, or in none,")
    gap = float(np.mean(inside[0][known] - outside[0][known]))
    with_it = np.where(np.isfinite(inside[0]), inside[0], outside[0] + gap)
    without = np.where(np.isfinite(outside[0]), outside[0], inside[0] - gap)
    return (with_it, inside[1]), (without, outside[1])


def _require(known: NDArray[np.bool_], where: str) -> None:
    if not known.all():
        raise InvalidRequest(
            f"{int((~known).sum())} of {len(known)} examples are {where} and cannot be compared: train "
            "shadows on random halves of the examples, or build(kind='offline') where no shadow holds them"
        )


def _fit(scores: NDArray[np.float64], which: NDArray[np.bool_], own_spread: int) -> Fit:
    """Return mean (NaN where there is none) and spread of each example's scores over some of the shadows."""
    counts = which.sum(axis=0)
    kept = np.where(which, scores, 0.0)
    mean = np.where(counts > 0, kept.sum(axis=0) / np.maximum(counts, 1), np.nan)
    squares = np.where(which, (scores - mean) ** 2, 0.0).sum(axis=0)
    freedom = np.maximum(counts - 1, 0)
    if counts.min() >= max(2, own_spread):
        spread = np.sqrt(squares / freedom)
    elif freedom.sum() > 0:
        spread = np.full(len(counts), np.sqrt(squares.sum() / freedom.sum()))
    else:  # one shadow on this side: the examples' own means are all there is
        spread = np.full(len(counts), np.nanstd(mean) if (counts > 0).any() else 1.0)
    floor = max(1e-12, 1e-6 * float(np.abs(scores).max(initial=0.0)))
    return mean, np.maximum(spread, floor)


def _log_density(
    scores: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    result: NDArray[np.float64] = -0.5 * ((scores - mean) / spread) ** 2 - np.log(spread)
    return result
