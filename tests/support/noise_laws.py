"""Whether draws have a law, told by other means than those that drew it; and a scripted source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sfumato.core.entropy import SeededEntropy
from sfumato.mechanisms.exact import Law

Cdf = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Scripted:
    """Gives the bytes that it was told first, then those of a seeded stream."""

    private = True

    def __init__(self, words: Sequence[int], order: str = "big") -> None:
        self.first = b"".join(word.to_bytes(8, order) for word in words)  # type: ignore[arg-type]
        self.rest, self.count = SeededEntropy(3), 0

    def bytes(self, count: int) -> bytes:
        self.count += count
        given, self.first = self.first[:count], self.first[count:]
        return given + self.rest.bytes(count - len(given))


def cdf(law: Law) -> Cdf:
    """Return P(X <= k) by other ways than the tables': SciPy, and for wide Gaussians the continuous one."""
    if law.kind == "laplace":
        if law.width > 1e8:
            return lambda k: stats.laplace(scale=law.width).cdf(k + 0.5)  # type: ignore[no-any-return]
        return stats.dlaplace(float(1 / law.parameter)).cdf  # type: ignore[no-any-return]
    if law.kind == "rounded":
        return lambda k: stats.laplace(scale=law.width).cdf(k + 0.5)  # type: ignore[no-any-return]
    if law.width > 30:
        return lambda k: stats.norm(scale=law.width).cdf(k + 0.5)  # type: ignore[no-any-return]
    reach = np.arange(-400, 401)
    weights = np.exp(-(reach**2.0) / (2 * float(law.parameter)))
    sums = np.cumsum(weights / weights.sum())
    return lambda k: sums[np.clip(k, -400, 400).astype(int) + 400]  # type: ignore[no-any-return]


def fits(draws: NDArray[np.int64], law: Law) -> bool:
    """Return whether draws have this law, by chi-square over some 60 cells; wrong once in a million."""
    side = np.unique(np.ceil(np.geomspace(1, max(2, 25 * law.width), 40)).astype(np.int64))
    edges = np.unique(np.concatenate([-side, [0], side - 1]))
    expected = np.diff(cdf(law)(edges.astype(float)), prepend=0, append=1) * len(draws)
    seen = np.bincount(np.searchsorted(edges, draws), minlength=len(expected)).astype(float)
    # Cells that expect few are put together with the next.
    groups = np.minimum.accumulate(((np.cumsum(expected[::-1])) // 8)[::-1])
    _, first = np.unique(-groups, return_index=True)
    seen, expected = np.add.reduceat(seen, first), np.add.reduceat(expected, first)
    if len(seen) == 1:
        return bool(seen[0] == len(draws))
    return bool(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-6)
