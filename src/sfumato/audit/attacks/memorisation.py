"""Memorisation: does the model know what was planted better than what could have been planted?

Sources: exposure, Carlini, Liu, Erlingsson, Kos, Song 2019 (arXiv 1802.08232); counterfactual memorisation,
Feldman 2020 (arXiv 1906.05271), where shadow models are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfumato.audit.attacks import Attack, Attacked, Observed
from sfumato.audit.attacks._scores import judge

SUMMARY = "exposure of planted examples among others that could have been planted"
NEEDS = ("scipy",)
EXTRA = ""


def build() -> Attack:
    """Build the attack; `member` of what it is given says which candidates were planted.

    >>> seen = Observed(np.concatenate([np.full(10, 9.0), np.arange(90) / 90]), np.arange(100) < 10)
    >>> round(build().run(seen).facts["exposure"], 2)   # every planted one ranks first of 91
    6.51
    """
    return _Memorisation()


@dataclass(frozen=True, slots=True)
class _Memorisation:
    name: str = "memorisation"

    def run(self, observed: Observed, *, delta: float = 0.0, confidence: float = 0.95) -> Attacked:
        exposures = exposure(observed.scores[observed.member], observed.scores[~observed.member])
        facts = {
            "exposure": float(np.median(exposures)),
            "exposure_most": float(exposures.max()),
            "exposure_ceiling": math.log2(observed.others + 1),
            "exposure_blind": 1.0,  # a uniform rank among many: median 1 bit
        }
        if observed.shadow_scores is not None and observed.shadow_member is not None:
            gains = counterfactual(observed.shadow_scores, observed.shadow_member)[observed.member]
            if (gains := gains[~np.isnan(gains)]).size:
                facts |= {"memorised": float(np.median(gains)), "memorised_most": float(gains.max())}
        found = judge(self.name, observed.scores, observed, delta, confidence)
        return replace(found, facts=facts)


def exposure(planted: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log2 of how many candidates there are over the rank, per planted example; ties count against.

    >>> exposure(np.array([5.0, 0.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [2.0, 0.0]
    """
    ordered = np.sort(others)
    rank = 1 + len(others) - np.searchsorted(ordered, planted, side="left")
    result: NDArray[np.float64] = np.log2((len(others) + 1) / rank)
    return result


def counterfactual(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each example's mean score with it in the data, less that without; NaN where one is missing."""
    inside, outside = member.sum(axis=0), (~member).sum(axis=0)
    both = (inside > 0) & (outside > 0)
    with_it = np.where(member, scores, 0.0).sum(axis=0) / np.maximum(inside, 1)
    without = np.where(member, 0.0, scores).sum(axis=0) / np.maximum(outside, 1)
    result: NDArray[np.float64] = np.where(both, with_it - without, np.nan)
    return result
