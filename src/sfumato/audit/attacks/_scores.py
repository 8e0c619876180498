"""What attacks make of one score per example."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sfumato.audit.attacks import Attacked, Observed
from sfumato.audit.canaries import guess
from sfumato.audit.one_run import epsilon_lower, significance

#: False positive rates at which the true positive rate is told.
LOW = (0.001, 0.01, 0.1)
#: The part of the examples that is guessed where the members were drawn by coins: fixed, never by outcome.
GUESSED = 0.1


def judge(
    name: str, scores: NDArray[np.float64], observed: Observed, delta: float, confidence: float
) -> Attacked:
    """Return what these scores reach: AUC, true positive rates, epsilon."""
    members, others = scores[observed.member], scores[~observed.member]
    auc, p = area(members, others)
    rates = tuple(_rates(members, others, confidence))
    if observed.coins:
        made = max(2, 2 * round(len(scores) * GUESSED / 2))
        counted = guess(scores, observed.member, made)
        epsilon = epsilon_lower(
            counted.right, counted.made, counted.canaries, delta=delta, confidence=confidence
        )
        assumes = ""
    else:
        epsilon = _two_samples(members, others, delta, confidence)
        assumes = "members and others are independent draws from one distribution, and so are their scores"
    return Attacked(name, auc, rates, epsilon, confidence, assumes, p)


def area(members: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    """Return the area under the ROC curve, ties halved, and the one-sided p-value of Mann and Whitney."""
    m, n = len(members), len(others)
    both = np.concatenate([members, others])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    u = float(middle[place[:m]].sum()) - m * (m + 1) / 2
    ties = float(np.sum(counts.astype(float) ** 3 - counts)) / ((m + n) * (m + n - 1))
    variance = m * n / 12 * (m + n + 1 - ties)
    z = (u - m * n / 2 - 0.5) / math.sqrt(variance) if variance > 0 else 0.0
    return u / (m * n), float(special.ndtr(-z)) if variance > 0 else 1.0


def clopper_pearson(count: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return bounds of a rate, each of which holds with probability 1 - (1 - confidence) / 2.

    >>> low, high = clopper_pearson(0, 10, 0.95)
    >>> low, round(high, 4)
    (0.0, 0.3085)

    Source: Clopper, Pearson 1934.
    """
    alpha = significance(confidence) / 2
    low = float(special.betaincinv(count, trials - count + 1, alpha)) if count else 0.0
    high = float(special.betaincinv(count + 1, trials - count, 1 - alpha)) if count < trials else 1.0
    return low, high


def _rates(
    members: NDArray[np.float64], others: NDArray[np.float64], confidence: float
) -> Iterator[tuple[float, float, float, float]]:
    ordered = np.sort(others)
    for rate in LOW:
        allowed = int(rate * len(others))
        if allowed == 0:
            continue  # so few others cannot show so low a rate
        threshold = ordered[-allowed - 1] if allowed < len(others) else -math.inf
        count = int((members > threshold).sum())
        low, high = clopper_pearson(count, len(members), confidence)
        yield rate, count / len(members), low, high


def _two_samples(
    members: NDArray[np.float64], others: NDArray[np.float64], delta: float, confidence: float
) -> float:
    """Return an epsilon by (true - delta) / false and (1 - false - delta) / (1 - true) at one threshold.

    The threshold is chosen on every other example and judged on the rest, so that the choice costs nothing.
    """
    chosen = _best_threshold(members[::2], others[::2], delta)
    found = (int((members[1::2] > chosen).sum()), int((others[1::2] > chosen).sum()))
    sizes = (len(members[1::2]), len(others[1::2]))
    (low_true, high_true), (low_false, high_false) = (
        clopper_pearson(count, size, confidence) for count, size in zip(found, sizes, strict=True)
    )
    del high_true, low_false
    best = 0.0
    for above, below in ((low_true - delta, high_false), (1 - high_false - delta, 1 - low_true)):
        if above > below > 0:
            best = max(best, math.log(above / below))
    return best


def _best_threshold(members: NDArray[np.float64], others: NDArray[np.float64], delta: float) -> float:
    thresholds = np.unique(np.quantile(others, np.linspace(0, 1, 200), method="higher"))
    true = 1 - np.searchsorted(np.sort(members), thresholds, side="right") / len(members)
    false = 1 - np.searchsorted(np.sort(others), thresholds, side="right") / len(others)
    # one count more on the wrong side: what so few examples cannot tell must not look best
    wrong, missed = false + 1 / len(others), 1 - true + 1 / len(members)
    gain = np.maximum((true - delta) / wrong, (1 - false - delta) / missed)
    return float(thresholds[int(np.argmax(gain))])
