"""Can any unit add more than the clip bound, whatever its gradients are?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sfumato.audit.findings import Finding
from sfumato.core.errors import InvalidRequest

#: What one unit with these gradients, (k, d) float64, adds to the sum: (d,). The run's own clipping code.
Contribution = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Rounding of the test's own norm, nothing more.
ROUNDING = 1e-12


def clipping(contribution: Contribution, size: int, *, bound: float = 1.0, several: bool = True) -> Finding:
    """Return the largest contribution over gradients that are meant to break the bound.

    >>> clipping(lambda g: g.sum(axis=0) / max(1.0, np.linalg.norm(g.sum(axis=0))), 3, several=False).p
    0.0
    >>> def clip(g):
    ...     total = np.where(np.isfinite(g), g, 0.0).sum(axis=0)
    ...     largest = np.abs(total).max() or 1.0
    ...     return total / max(largest * np.linalg.norm(total / largest), 1.0)
    >>> clipping(clip, 3).p
    1.0

    Args:
        contribution: the run's own clipping.
        size: numbers in a gradient, d.
        bound: that no contribution's L2 norm may exceed.
        several: also try units with several gradients, which count once all together.

    Raises:
        InvalidRequest: a contribution of another size.
    """
    worst, least = "none", 0.0
    for name, gradients in hostile(size, bound, several):
        added = np.asarray(contribution(gradients.copy()), dtype=np.float64)
        if added.shape != (size,):
            raise InvalidRequest(f"a contribution has {size} numbers, as the gradients do; got {added.shape}")
        norm = _norm(added)
        if not norm <= least:
            worst, least = name, norm
        if not math.isfinite(norm):
            break
    broken = not least <= bound * (1 + ROUNDING)
    said = f"a contribution of {least / bound:.6g} clip bounds at most, by gradients that are {worst}"
    return Finding("clip-bound", said, 0.0 if broken else 1.0)


def hostile(size: int, bound: float, several: bool) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield gradients that clipping code is known to get wrong."""
    axis = np.zeros(size)
    axis[-1] = 1.0
    flat = np.full(size, 1 / math.sqrt(size))
    signs = np.where(np.arange(size) * 2654435761 % 7 < 3, 1.0, -1.0) / math.sqrt(size)
    ramp = np.arange(1.0, size + 1)
    ramp /= np.linalg.norm(ramp)
    shapes = {"along one axis": axis, "flat": flat, "of mixed signs": signs, "a ramp": ramp}
    scales = (0.0, 1e-45, 1e-30, 1e-6, 0.5, 1 - 1e-7, 1.0, 1 + 1e-7, 1.001, 3.0, 1e6, 1e19, 1e25, 1e38)
    for name, shape in shapes.items():
        for scale in scales:
            yield f"{name}, {scale:g} bounds long", (scale * bound * shape)[None]
    for value in (math.nan, math.inf, -math.inf):
        yield f"flat with one {value}", np.where(axis == 1, value, flat)[None]
        yield f"{value} throughout", np.full((1, size), value)
    if several:
        for count in (2, 3, 8):
            yield f"{count} equal ones of one unit", np.repeat(3 * bound * flat[None], count, axis=0)
            yield f"{count} short ones of one unit", np.repeat(0.9 * bound * axis[None], count, axis=0)
        yield "four different ones of one unit", 2 * bound * np.stack(list(shapes.values()))
        yield "one of one unit that is nan", np.stack([flat * np.nan, 3 * bound * axis])


def _norm(vector: NDArray[np.float64]) -> float:
    """L2 norm that neither overflows nor loses tiny numbers."""
    largest = float(np.abs(vector).max(initial=0.0))
    if not math.isfinite(largest) or largest == 0:
        return largest
    return largest * float(np.linalg.norm(vector / largest))
