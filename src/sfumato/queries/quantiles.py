"""Quantiles from noisy histograms of several widths: a tree over the bins of a public grid.

A rank is a sum over bins: over thousands of noisy ones it would be all noise. With a tree it takes a few
numbers of each level, and what all levels say together is made consistent. Bins and levels depend on public
numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sfumato.queries import rollup
from sfumato.queries.ratios import Figures
from sfumato.queries.spread import LAPLACE, NORMAL, Floats, Spread

#: Bins at most, where a step is declared, and where none is; children of a node at most. Every level takes
#: its share of the noise, so two of them do better for small groups, and a third is for who asks for fine
#: steps.
MOST, USUAL, FAN = 4096, 256, 16
#: Bins of so many are worked on at a time.
AT_ONCE = 1 << 21


def bins(
    bounds: tuple[Fraction, Fraction], step: Fraction | None = None, *, whole: bool = False
) -> tuple[Fraction, Fraction, int]:
    """Return low, width and count of the bins: a whole power of the children of a node.

    >>> bins((Fraction(0), Fraction(120)), whole=True), bins((Fraction(0), Fraction(50)))
    ((Fraction(0, 1), Fraction(1, 1), 121), (Fraction(0, 1), Fraction(1, 5), 256))

    Bins beyond the upper bound fill the tree up, and stay empty.

    Args:
        bounds: of the values; step: their declared step, if any; whole: they are whole numbers.
    """
    low, high = bounds
    width = _round_up((high - low) / ((USUAL if step is None else MOST) - 1), whole=whole)
    if step is not None:
        width = max(step, width)
    wanted = max(2, math.floor((high - low) / width) + 1)
    depth = next(depth for depth in (1, 2, 3) if wanted <= FAN**depth)
    fan = next(fan for fan in range(2, FAN + 1) if wanted <= fan**depth)
    return low, width, fan**depth


def levels(count: int) -> tuple[int, ...]:
    """Return how many nodes the levels of the tree have, from the top down.

    >>> levels(4096), levels(121), levels(10)
    ((16, 256, 4096), (11, 121), (10,))

    Args:
        count: of the bins, as `bins` gives it; any other count gets one level.
    """
    for depth in (3, 2):
        fan = round(count ** (1 / depth))
        if fan**depth == count and fan <= FAN and count > FAN ** (depth - 1):
            return tuple(fan**at for at in range(1, depth + 1))
    return (count,)


def widths(count: int) -> tuple[int, ...]:
    """Return how many bins a node of each level holds, from the top down.

    >>> widths(4096)
    (256, 16, 1)
    """
    return tuple(count // nodes for nodes in levels(count))


def tree_sums(leaves: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the exact sums of every level, from the top down; the last is `leaves` itself.

    >>> [level.tolist() for level in tree_sums(np.arange(25).reshape(1, 25))][0]
    [[10, 35, 60, 85, 110]]

    Args:
        leaves: (..., bins) int64.
    """
    count = leaves.shape[-1]
    return [leaves.reshape(*leaves.shape[:-1], nodes, count // nodes).sum(-1) for nodes in levels(count)]


def quantile(
    tree: Sequence[NDArray[np.int64]],
    noise: Sequence[Spread],
    at: Fraction,
    grid: tuple[Fraction, Fraction],
    bounds: tuple[float, float],
    *,
    whole: bool = False,
) -> Figures:
    """Return a quantile of each cell: the first value with a share of at least `at` not above it.

    Guarantee: the interval holds the true quantile in 95 % of draws or more, to the edges of the bins that
    its ends lie in. Where there may be no rows at all, the figure is missing and its interval is all of
    `bounds`.

    Args:
        tree: (cells, nodes) of each level, from the top down; noise: of one number of each.
        at: in 0..1.
        grid: low and width of the bins.
        bounds: of the values.
        whole: values are whole numbers, one to a bin where bins are 1 wide.
    """
    sizes = [level.shape[-1] for level in tree]
    up = rollup.upward(sizes, noise)
    # A rank takes many noises together, so its tails are nearly normal.
    z = LAPLACE / 4 + NORMAL * 3 / 4 if noise[0].fourth else NORMAL
    doubt = z * _deviations(sizes[0], up, float(at))
    most = max(1, AT_ONCE // sizes[-1])
    parts = [
        _places([level[first : first + most] for level in tree], noise, float(at), doubt)
        for first in range(0, len(tree[0]), most)
    ]
    total, low, high, place, part = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    start, width = float(grid[0]), float(grid[1])
    single = whole and grid[1] == 1
    least = np.clip(start + width * low, *bounds)
    last = np.clip(start + width * (high + (0 if single else 1)), *bounds)
    value = np.clip(start + width * (place if single else place + part), least, last)
    clear = total > z * math.sqrt(sizes[0] * up[0])
    return Figures(
        np.where(clear, value, np.nan),
        np.where(clear, (last - least) / (2 * NORMAL), np.nan),
        np.where(clear, least, bounds[0]),
        np.where(clear, last, bounds[1]),
    )


def _places(
    tree: Sequence[NDArray[np.int64]], noise: Sequence[Spread], at: float, doubt: Floats
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the number of rows, the first and last possible bin, the likeliest, and how far into it."""
    best = rollup.consistent(tree, noise)
    total = best[0].sum(-1)
    low, high = _ends(np.cumsum(best[-1], axis=-1) - at * total[:, None], doubt)
    part, place = _crossing(best, np.maximum(total, 0), at)
    return total, low, high, place, part


def _ends(ranks: Floats, doubt: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last bin that the noise leaves possible for the quantile.

    Args:
        ranks: (cells, bins) rows up to the end of each bin, less those that lie up to the quantile.
        doubt: (bins,) half the width of its 95 % interval.
    """
    count = ranks.shape[-1]
    # True ranks rise; halfway between the rising bounds around noisy ones is no further from them, and far
    # less often at nought where no rows lie.
    rising = np.maximum.accumulate(ranks, axis=-1)
    rising = (rising + np.minimum.accumulate(ranks[:, ::-1], axis=-1)[:, ::-1]) / 2
    reached, short = rising + doubt >= 0, rising - doubt < 0
    low = np.where(reached.any(-1), reached.argmax(-1), count - 1)
    # The bin after the last one whose end is short of the quantile for certain.
    high = np.minimum(np.where(short.any(-1), count - short[:, ::-1].argmax(-1), 0), count - 1)
    return np.minimum(low, high), np.maximum(low, high)


def _crossing(best: Sequence[Floats], total: Floats, at: float) -> tuple[Floats, NDArray[np.int64]]:
    """Return how far into which bin the share is reached, by estimates without negative counts."""
    leaves = rollup.non_negative([total[:, None], *best])[-1]
    ranks = np.cumsum(leaves, axis=-1)
    wanted = np.maximum(at * total, 1e-9 * np.maximum(total, 1))[:, None]
    place = np.minimum((ranks < wanted * (1 - 1e-12)).sum(-1), leaves.shape[-1] - 1)
    inside = np.take_along_axis(leaves, place[:, None], axis=-1)
    before = np.take_along_axis(ranks, place[:, None], axis=-1) - inside
    part = np.divide(wanted - before, inside, out=np.full_like(inside, 0.5), where=inside > 0)
    return np.clip(part[:, 0], 0, 1), place


def _deviations(fan: int, up: Sequence[float], at: float) -> Floats:
    """Return the standard deviation of rank - at * total at the end of every bin.

    A rank is a weighted sum of the estimates of one level; within a family of siblings these are what the
    parent leaves, shared out, plus independent noise whose sum was taken off.
    """
    index = np.arange(fan ** len(up))
    variance, inside = np.zeros(len(index)), np.zeros(len(index))
    for depth in range(len(up) - 1, -1, -1):
        child = index // fan ** (len(up) - 1 - depth) % fan
        # `inside` is the weight of the child on the path; the leaf itself counts whole.
        last = np.ones(len(index)) if depth == len(up) - 1 else inside
        squares, weight = child + last**2, child + last
        if depth:
            variance += up[depth] * (squares - weight**2 / fan)
            inside = weight / fan
        else:
            squares = child * (1 - at) ** 2 + (last - at) ** 2 + (fan - 1 - child) * at**2
            variance += up[0] * squares
    return np.sqrt(np.maximum(variance, 0))


def _round_up(least: Fraction, *, whole: bool) -> Fraction:
    """Return the first of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... not below `least`; if `whole`, of 1, 2, 5, ..."""
    step = Fraction(10) ** (math.floor(math.log10(least)) - 1)
    if whole:
        step = max(step, Fraction(1))
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10
