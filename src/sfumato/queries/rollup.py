"""Totals that add up: noisy numbers of every level of a tree become one consistent set of estimates.

Weighted least squares over a tree whose nodes of one level have equally many children and equally much noise:
Hay, Rastogi, Miklau and Suciu 2010 (arXiv 0904.0942, theorem 3), with a variance for each level. It is linear
and unbiased, and of all such estimates the one with the smallest variance. All of it is work on noisy
numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.queries.spread import Floats, Spread


def consistent(levels: Sequence[NDArray[np.int64]], noise: Sequence[Spread]) -> list[Floats]:
    """Return the best estimates of every level; each is the sum of its children.

    >>> total, parts = consistent([np.array([12]), np.array([3, 6])], [Spread(1.0), Spread(1.0)])
    >>> total, parts
    (array([11.]), array([4., 7.]))

    Args:
        levels: from the root down, each (nodes,) or (cells, nodes), in the order of the tree.
        noise: of one number of each level.
    """
    up = _upward([level.shape[-1] for level in levels], noise)
    fans = [
        1,
        *(below.shape[-1] // above.shape[-1] for above, below in itertools.pairwise(levels)),
    ]
    best: list[Floats] = [levels[-1].astype(np.float64)]
    for depth in range(len(levels) - 2, -1, -1):
        sums = _sums(best[0], fans[depth + 1])
        own = up[depth].own
        best.insert(0, own * levels[depth] + (1 - own) * sums)
    for depth in range(1, len(levels)):
        missing = (best[depth - 1] - _sums(best[depth], fans[depth])) / fans[depth]
        best[depth] = best[depth] + np.repeat(missing, fans[depth], axis=-1)
    return best


def spreads(sizes: Sequence[int], noise: Sequence[Spread]) -> list[Spread]:
    """Return the spread of one estimate of each level of `consistent`.

    An estimate is a weighted sum of all noisy numbers. The weight of a number depends only on its level and
    on where its path to the root meets that of the estimate, so a few classes of numbers stand for all.

    Args:
        sizes: nodes of each level, from the root down.
    """
    up = _upward(sizes, noise)
    fans = [1, *(below // above for above, below in itertools.pairwise(sizes))]
    return [_spread(depth, fans, up, noise) for depth in range(len(sizes))]


class _Up:
    """The estimate of a node from below: `own` is the weight of its own number, the rest its children's."""

    def __init__(self, own: float, variance: float) -> None:
        self.own, self.variance = own, variance


def _upward(sizes: Sequence[int], noise: Sequence[Spread]) -> list[_Up]:
    found = [_Up(1.0, noise[-1].variance)]
    for depth in range(len(sizes) - 2, -1, -1):
        below = sizes[depth + 1] // sizes[depth] * found[0].variance
        own, variance = below, noise[depth].variance
        total = own + variance
        found.insert(0, _Up(own / total if total else 1.0, own * variance / total if total else 0.0))
    return found


def _spread(target: int, fans: Sequence[int], up: Sequence[_Up], noise: Sequence[Spread]) -> Spread:
    depth = len(up)

    def reach(top: int, down: int) -> float:
        """Return the weight of a number of level `down` in the upward estimate of its ancestor at `top`."""
        return math.prod(1 - up[at].own for at in range(top, down)) * up[down].own

    # What the upward estimates on the path weigh, and those of the siblings of the path.
    path, siblings, share = [0.0] * (target + 1), [0.0] * (target + 1), 1.0
    for at in range(target, -1, -1):
        path[at] = share * (1 - 1 / fans[at]) if at else share
        siblings[at] = -share / fans[at] if at else 0.0
        share /= fans[at]
    total = Spread(0.0)
    for level in range(depth):
        inherited = 0.0
        for meets in range(min(level, target) + 1):
            inherited += path[meets] * reach(meets, level)
            if meets in (target, level):
                count = math.prod(fans[meets + 1 : level + 1])
                total += noise[level].times(inherited, count)
            else:
                others = (fans[meets + 1] - 1) * math.prod(fans[meets + 2 : level + 1])
                weight = inherited + siblings[meets + 1] * reach(meets + 1, level)
                total += noise[level].times(weight, others)
    return total


def upward(sizes: Sequence[int], noise: Sequence[Spread]) -> list[float]:
    """Return the variance of the estimate of a node of each level from its own number and those below it."""
    return [one.variance for one in _upward(sizes, noise)]


def non_negative(levels: Sequence[Floats]) -> list[Floats]:
    """Return the nearest estimates that are not below 0 and still add up, from the root down.

    >>> non_negative([np.array([4.0]), np.array([-1.0, 2.0, 3.0])])[1]
    array([0. , 1.5, 2.5])
    """
    done = [np.maximum(levels[0], 0)]
    for below in levels[1:]:
        totals = done[-1]
        fan = below.shape[-1] // totals.shape[-1]
        parts = below.reshape(*totals.shape, fan)
        done.append(_simplex(parts, totals).reshape(below.shape))
    return done


def whole(levels: Sequence[Floats]) -> list[NDArray[np.int64]]:
    """Return whole numbers that still add up: the largest remainders are rounded up.

    >>> whole([np.array([3.0]), np.array([0.6, 0.7, 1.7])])[1]
    array([0, 1, 2])
    """
    done = [np.rint(levels[0]).astype(np.int64)]
    for below in levels[1:]:
        totals = done[-1]
        fan = below.shape[-1] // totals.shape[-1]
        parts = below.reshape(*totals.shape, fan)
        # Rounding the total may have moved it: the parts share what is missing before they are cut.
        floors = np.floor(parts)
        missing = totals - floors.sum(-1).astype(np.int64)
        ranks = np.argsort(np.argsort(floors - parts, axis=-1, kind="stable"), axis=-1, kind="stable")
        each, left = np.divmod(missing, fan)
        rounded = floors.astype(np.int64) + each[..., None] + (ranks < left[..., None])
        done.append(rounded.reshape(below.shape))
    return done


def _sums(values: Floats, fan: int) -> Floats:
    result: Floats = values.reshape(*values.shape[:-1], values.shape[-1] // fan, fan).sum(-1)
    return result


def _simplex(parts: Floats, totals: Floats) -> Floats:
    """Return the nearest points (least squares) with no negative part and the given sums."""
    falling = -np.sort(-parts, axis=-1)
    excess = (np.cumsum(falling, axis=-1) - totals[..., None]) / np.arange(1, parts.shape[-1] + 1)
    used = np.maximum((falling > excess).sum(-1, keepdims=True), 1)
    result: Floats = np.maximum(parts - np.take_along_axis(excess, used - 1, axis=-1), 0)
    return result
