"""Gradient canaries: directions of their own, put into a run by fair coins, and looked for in its noisy sums.

A canary is a unit whose gradient has the norm of the clip bound, along a direction that no other canary
shares: one coordinate each. Whoever sees the noisy sums sees each canary alone, which is the strongest
position that differential privacy is about. The run's own code does the work: it is passed in as a callable.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sfumato.audit.one_run import epsilon_lower
from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest

#: One step of the run's own code: takes which canaries are in the data, as indices; samples, clips, adds
#: noise, and returns the noisy sum of gradients along each canary's direction, in units of the clip bound.
Step = Callable[[NDArray[np.intp]], NDArray[np.float64]]

#: Fewer canaries than this show next to nothing.
FEWEST = 32
#: A direction may hold this much before it is no longer a number that noise explains.
HUGE = 1e100


@dataclass(frozen=True, slots=True)
class Game:
    """What was seen of one run.

    Args:
        included: (m,) bool; the coins: whether a canary was in the data.
        sums: (T, m) float64; each step's noisy sum along each canary's direction, in units of the clip bound.
    """

    included: NDArray[np.bool_]
    sums: NDArray[np.float64]

    @property
    def canaries(self) -> int:
        """How many canaries there were."""
        return len(self.included)

    def scores(self, noise_multiplier: float, rate: float) -> NDArray[np.float64]:
        """Return for each canary the log-likelihood ratio of "was in" to "was not", as the claim says it is.

        A step holds a canary with probability `rate`, and then its direction is shifted by one clip bound.
        The best score for the claimed mechanism; for any other a score like another, and bounds stay valid.
        """
        missed = np.log1p(-rate) if rate < 1 else -np.inf
        result = np.zeros(self.canaries)
        for row in self.sums:  # row by row: a long run's sums are large already
            taken = np.log(rate) + (np.clip(row, -HUGE, HUGE) - 0.5) / noise_multiplier**2
            result += np.logaddexp(missed, taken)
        return result


@dataclass(frozen=True, slots=True)
class Guesses:
    """How many of the canaries' coins were guessed, and how many rightly."""

    right: int
    made: int
    canaries: int


def play(step: Step, canaries: int, steps: int, *, entropy: Entropy = SYSTEM) -> Game:
    """Throw the canaries' coins, run the steps, and keep what they show.

    >>> game = play(lambda members: np.bincount(members, minlength=64).astype(float), 64, 3)
    >>> bool((game.sums[0] == game.included).all())   # without noise every canary shows
    True

    Args:
        step: one step of the run's own code.
        canaries: how many; each is included with probability 1/2.
        steps: how many steps the run has.
        entropy: of the coins.

    Raises:
        InvalidRequest: too few canaries, no step, or a sum of another size or with a NaN.
    """
    if canaries < FEWEST or steps < 1:
        raise InvalidRequest(
            f"an audit takes {FEWEST} canaries and one step at least, got {canaries} and {steps}"
        )
    included = coins(canaries, entropy)
    members = np.flatnonzero(included)
    sums = np.empty((steps, canaries))
    for row in sums:
        seen = np.asarray(step(members), dtype=np.float64)
        if seen.shape != row.shape:
            raise InvalidRequest(
                f"a step must return one number per canary, {canaries} in all; it returned {seen.shape}"
            )
        row[:] = seen
    if np.isnan(sums).any():
        raise InvalidRequest("a step returned a sum with a NaN: the run is broken, and no audit can tell how")
    return Game(included, sums)


def coins(count: int, entropy: Entropy = SYSTEM) -> NDArray[np.bool_]:
    """Return `count` fair coins."""
    packed = np.frombuffer(entropy.bytes(-(-count // 8)), np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_], made: int) -> Guesses:
    """Guess "in" for the half of `made` with the highest scores, "out" for that with the lowest; count.

    >>> guess(np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False]), 2)
    Guesses(right=2, made=2, canaries=4)
    """
    half = made // 2
    if not 1 <= half <= len(scores) // 2 or scores.shape != included.shape:
        raise InvalidRequest(f"of {len(scores)} canaries 2 to all may be guessed, an even number; got {made}")
    order = np.argsort(scores, kind="stable")
    right = int(included[order[-half:]].sum()) + int((~included[order[:half]]).sum())
    return Guesses(right, 2 * half, len(scores))


def best_number(canaries: int, shift: float, *, delta: float, confidence: float = 0.95) -> int:
    """Return how many guesses give the largest bound if a canary shifts its score by `shift` deviations.

    It depends on the claim alone, never on the outcome, which keeps the bound valid.

    >>> best_number(1000, 0.5, delta=1e-5) >= best_number(1000, 4.0, delta=1e-5) // 8
    True
    """
    numbers = sorted({max(2, 2 * round(canaries * part / 2)) for part in _PARTS})
    numbers = [number for number in numbers if number <= canaries]

    def bound(number: int) -> float:
        right = int(number * accuracy(number / canaries, shift))
        return epsilon_lower(right, number, canaries, delta=delta, confidence=confidence)

    return max(numbers, key=lambda number: (bound(number), number))  # if none shows a thing: all


_PARTS = tuple(
    one * scale
    for scale, one in itertools.product((0.01, 0.1, 1.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    if one * scale <= 1
)


def accuracy(part: float, shift: float) -> float:
    """Return how often a guess is right when a `part` of the canaries, the most extreme, is guessed.

    Scores are N(0, 1) without a canary and N(shift, 1) with it.
    """
    low, high = -40.0, shift + 40.0
    for _ in range(80):  # the threshold above which half of the guessed part lies
        middle = (low + high) / 2
        above = special.ndtr(-middle) + special.ndtr(shift - middle)
        low, high = (middle, high) if above > part else (low, middle)
    hit, miss = float(special.ndtr(shift - low)), float(special.ndtr(-low))
    return hit / (hit + miss) if hit + miss > 0 else 1.0
