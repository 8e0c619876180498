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
        outside = _fit(scores, ~member, self.own_spread)
        if self.kind == "online":
            inside = _fit(scores, member, self.own_spread)
            ratio = _log_density(observed.scores, *inside) - _log_density(observed.scores, *outside)
        else:
            ratio = (observed.scores - outside[0]) / outside[1]
        return judge(self.name, ratio, observed, delta, confidence)


def _fit(
    scores: NDArray[np.float64], which: NDArray[np.bool_], own_spread: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and spread of each example's scores over some of the shadows."""
    counts = which.sum(axis=0)
    if counts.min() < 1:
        missing = int((counts < 1).sum())
        raise InvalidRequest(
            f"{missing} of {len(counts)} examples are in all shadows, or in none; each must be in some and "
            "out of others: train shadows on random halves, or build(kind='offline') where none holds them"
        )
    kept = np.where(which, scores, 0.0)
    mean = kept.sum(axis=0) / counts
    squares = np.where(which, (scores - mean) ** 2, 0.0).sum(axis=0)
    freedom = counts - 1
    if counts.min() >= max(2, own_spread):
        spread = np.sqrt(squares / freedom)
    elif freedom.sum() > 0:
        spread = np.full(len(counts), np.sqrt(squares.sum() / freedom.sum()))
    else:  # one shadow on this side: the examples' own means are all there is
        spread = np.full(len(counts), mean.std())
    floor = max(1e-12, 1e-6 * float(np.abs(scores).max(initial=0.0)))
    return mean, np.maximum(spread, floor)


def _log_density(
    scores: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    result: NDArray[np.float64] = -0.5 * ((scores - mean) / spread) ** 2 - np.log(spread)
    return result
