"""DP-FTRL: noise that is correlated over steps, where data cannot be sampled by coins.

Noise w with C w = z replaces z, where z is white and C is lower triangular with `bands` diagonals: of what
one step adds, later steps take a part back, so that sums of gradients carry less. Each unit is used in one
step of every `period`, the same one of each, chosen for it by a coin of its own at the start; with bands
<= period its columns of C share no row.

So, for k uses of clipped gradients g_1 ... g_k, the released C x moves by |sum of C[:, t_i] g_i|, whose
square is the sum of |C[:, t_i]|^2 |g_i|^2 <= k clip^2: as much as k Gaussian releases with noise
multiplier sigma, and that is the event which is charged. What is released, x + C^-1 z, is C^-1 (C x + z).

Source: Choquette-Choo, Ganesh, McKenna, McMahan, Rush, Thakurta and Xu, "(Amplified) Banded Matrix
Factorization" (NeurIPS 2023, arXiv 2306.08153), for the bands and the argument; their amplification by
sampling is not used. C is the best Toeplitz one for the mean squared error of all prefix sums, found from the
square root's coefficients (Fichtenberger, Henzinger and Upadhyay, ICML 2023) by L-BFGS; a C that is not
Toeplitz can be a little better.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.gaussian import GaussianNoise

Floats = NDArray[np.float64]
#: Prefix sums beyond this many steps weigh in by the first of them: the search must not take minutes.
LONGEST = 20_000


def root(bands: int) -> Floats:
    """Return the first coefficients of 1 / sqrt(1 - x), whose square is the prefix sum.

    >>> root(3).tolist()
    [1.0, 0.5, 0.375]
    """
    k = np.arange(1, bands)
    return np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])


def error_of(coefficients: Floats, steps: int) -> float:
    """Return the mean squared error of all prefix sums, at one unit of sensitivity and of noise."""
    return _loss(coefficients, steps)[0] / steps


@functools.lru_cache(maxsize=16)
def optimised(bands: int, steps: int) -> tuple[float, ...]:
    """Return the coefficients of C: columns of length 1, least error over all prefix sums."""
    from scipy.optimize import minimize

    start = root(bands)
    if bands == 1:
        return (1.0,)
    found = minimize(lambda c: _loss(c, min(steps, LONGEST)), start, jac=True, method="L-BFGS-B")
    best = found.x if _sound(found.x) and found.fun <= _loss(start, min(steps, LONGEST))[0] else start
    best = best / np.linalg.norm(best)
    # Rounding must not leave the columns longer than 1.
    return tuple(float(value) for value in best * (1 - 2.0**-40))


def matrix(coefficients: Floats | tuple[float, ...], steps: int) -> Floats:
    """Return C as a matrix, (steps, steps): for tests and for looking at it."""
    out = np.zeros((steps, steps))
    for offset, value in enumerate(coefficients[:steps]):
        out[np.arange(offset, steps), np.arange(steps - offset)] = value
    return out


def _sound(coefficients: Floats) -> bool:
    return bool(np.isfinite(coefficients).all() and coefficients[0] > 1e-3)


def _loss(coefficients: Floats, steps: int) -> tuple[float, Floats]:
    """Return |A C^-1|^2 |c|^2 and its gradient, by series: A C^-1 is Toeplitz as well."""
    from scipy.signal import lfilter

    impulse = np.zeros(steps)
    impulse[0] = 1
    inverse = lfilter([1.0], coefficients, impulse)
    sums = np.cumsum(inverse)
    weights = np.arange(steps, 0, -1.0)
    square = float(coefficients @ coefficients)
    error = float(weights @ sums**2)
    slope = lfilter([1.0], coefficients, sums)  # the series of 1 / (c^2 (1 - x)): minus the derivative by c_0
    pull = np.array(
        [
            (weights[j:] * sums[j:]) @ slope[: steps - j] if j < steps else 0.0
            for j in range(len(coefficients))
        ]
    )
    return error * square, 2 * coefficients * error - 2 * square * pull


class CorrelatedNoise:
    """The noise of one run, step after step: C w = z.

    Args:
        noise: where z comes from.
        bands, steps: of C.
    """

    def __init__(self, noise: GaussianNoise, bands: int, steps: int) -> None:
        self._noise, self.coefficients = noise, optimised(bands, steps)
        self._past: list[Floats] = []  # newest first

    def draw(self, count: int) -> Floats:
        """Return the next step's noise of deviation 1 at one unit of sensitivity."""
        if self._past and len(self._past[0]) != count:
            raise InvalidRequest(
                f"noise of dp-ftrl is for the same {len(self._past[0])} values in every step, and this "
                f"step has {count}: the trainable parameters must stay the same"
            )
        fresh = self._noise.standard(count)
        for value, past in zip(self.coefficients[1:], self._past, strict=False):
            fresh -= value * past
        fresh /= self.coefficients[0]
        self._past = [fresh, *self._past][: len(self.coefficients) - 1]
        return fresh.copy()

    def state(self) -> dict[str, torch.Tensor]:
        """Return what later steps need. It is noise: whoever reads it can take it away."""
        return {str(index): torch.from_numpy(past) for index, past in enumerate(self._past)}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self._past = [state[str(index)].numpy().astype(np.float64) for index in range(len(state))]


def groups(count: int, period: int, below: Callable[[int], int]) -> NDArray[np.int64]:
    """Return for each unit the step of every period that it is used in, by a coin of its own.

    Args:
        below: gives a uniform whole number under a limit.
    """
    return np.array([below(period) for _ in range(count)], np.int64)


def check_resumed(begun: int, saved: Mapping[str, Any] | None) -> None:
    """Refuse where steps were made after the checkpoint: their noise, which later steps need, is gone.

    Raises:
        InvalidRequest: says how many.
    """
    known = int(saved["begun"]) if saved is not None else 0
    if begun != known:
        raise InvalidRequest(
            f"a dp-ftrl run goes on from its last step only: {begun} steps have begun, and the checkpoint "
            "knows "
            f"{known}. Save after every step (or pause), or use dp-sgd, which goes on from any checkpoint."
        )
