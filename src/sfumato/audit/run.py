"""The whole audit of a run: canaries, direct tests, attacks; a report with a verdict."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.audit import direct, fdp, one_run
from sfumato.audit.attacks import Attacked
from sfumato.audit.canaries import FEWEST, Game, Guesses, best_number, guess, play
from sfumato.audit.direct.sampling import DRAWS
from sfumato.audit.findings import FALSE_ALARM, judged
from sfumato.audit.report import Bound, Report
from sfumato.audit.subject import Claim, Subject
from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import Event
from sfumato.core.losses import GRIDS, plan_epsilon, privacy_curve
from sfumato.core.numbers import float_down, rational

#: Sums that are kept: canaries times steps. 8 bytes each, and the tests need about three times as much again.
KEPT = 12_000_000
#: Epsilons at which a claimed curve is read, and the largest of them.
POINTS = 400
WIDEST = 200.0
#: The noise multiplier that a run acts like is found to this part, as steps of its logarithm.
FINE = 0.01
#: The search begins so many of these steps beside what a Gaussian curve says, and gives up at this noise.
START, LOUDEST = 4, 1e5
#: Canaries that shift their scores by so many deviations are plain to see: no bound is told more exactly.
FARTHEST = 12.0
#: Part of the canaries' shift by which the number of guesses is chosen: a fault doubles it, more or less.
FAULT = 1.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is audited.

    Args:
        canaries: how many; more show more. Fewer are taken where a long run's sums would not fit in memory.
        confidence: that all bounds hold, together.
        false_alarm: the chance that direct tests find anything in correct code.
        draws: batches drawn to test the sampler.
    """

    canaries: int = 5000
    confidence: float = 0.95
    false_alarm: float = FALSE_ALARM
    draws: int = DRAWS

    def __post_init__(self) -> None:
        one_run.significance(self.confidence)
        if self.canaries < FEWEST or not 0 < self.false_alarm < 1:
            raise InvalidRequest(
                f"an audit takes {FEWEST} canaries or more and a false alarm rate in 0..1, "
                f"got {self.canaries} and {self.false_alarm!r}"
            )


def audit(
    subject: Subject,
    *,
    settings: Settings | None = None,
    attacks: Sequence[Attacked] = (),
    entropy: Entropy = SYSTEM,
) -> Report:
    """Audit a run, and return a report; `report.require()` raises where it blocks the release.

    Guarantee (tested): a correct run is blocked with probability at most 1 - confidence, by the canaries, and
    false_alarm, by the direct tests; in fact far less often, since the bounds are not tight. A run that
    passes may still be broken: an audit shows only a lower bound.

    Args:
        subject: the run's claim, and its own code.
        settings: how.
        attacks: what attacks on the finished model reached, to be told and judged with the rest.
        entropy: of the canaries' coins.

    Source: audit/one_run.py, audit/fdp.py and audit/direct name theirs.
    """
    settings, begun = settings or Settings(), time.perf_counter()
    claim = subject.claim
    if claim.epsilon > one_run.MOST:
        raise InvalidRequest(
            f"a claim of epsilon {claim.epsilon:.3g} protects nobody, and no audit can tell it from none: "
            f"audit claims of up to {one_run.MOST:g}"
        )
    canaries = canaries_for(claim, settings.canaries)
    game = play(subject.step, canaries, claim.steps, entropy=entropy)
    bounds = canary_bounds(game, claim, settings.confidence)
    findings = list(direct.noise(game, claim.noise_multiplier, claim.rate, fresh=subject.fresh))
    if subject.sample is not None:
        findings += direct.sampling(subject.sample, subject.units, claim.rate, draws=settings.draws)
    if subject.contribution is not None:
        findings.append(direct.clipping(subject.contribution, subject.size, several=subject.several))
    return Report(
        claim=claim,
        canaries=canaries,
        confidence=settings.confidence,
        bounds=bounds,
        findings=judged(findings, settings.false_alarm),
        attacks=tuple(attacks),
        untested=_untested(subject),
        seconds=time.perf_counter() - begun,
    )


def canaries_for(claim: Claim, asked: int) -> int:
    """Return how many canaries are used where so many are asked for: a long run's sums must fit in memory."""
    return max(FEWEST, min(asked, KEPT // claim.steps))


def canary_bounds(game: Game, claim: Claim, confidence: float = 0.95) -> tuple[Bound, ...]:
    """Return the bounds that canaries show: by trade-off curves, and in pure form; they hold together.

    Args:
        game: of the run.
        claim: its own; the score, the number of guesses and the family of curves come from it.
        confidence: that both bounds hold.
    """
    each = 1 - (1 - confidence) / 2
    shift = _shift(claim, claim.noise_multiplier)
    made = best_number(game.canaries, FAULT * shift, delta=claim.delta, confidence=each)
    seen = guess(game.scores(claim.noise_multiplier, claim.rate), game.included, made)
    all_right = Guesses(seen.made, seen.made, seen.canaries)
    family = _Family(claim)
    by_curves = Bound(
        "f-DP in one run",
        family.epsilon_lower(seen, each),
        family.epsilon_lower(all_right, each),
        seen,
        family.p_value(seen),
    )
    pure = Bound(
        "one run",
        _pure(seen, claim, each),
        _pure(all_right, claim, each),
        seen,
        one_run.p_value(seen.right, seen.made, seen.canaries, epsilon=claim.epsilon, delta=claim.delta),
    )
    return by_curves, pure


def _pure(seen: Guesses, claim: Claim, confidence: float) -> float:
    return one_run.epsilon_lower(
        seen.right, seen.made, seen.canaries, delta=claim.delta, confidence=confidence
    )


def _shift(claim: Claim, noise_multiplier: float) -> float:
    """Return how far a canary shifts its score, in deviations: mu of the central limit (Bu et al. 2020)."""
    variance = math.expm1(min(600.0, noise_multiplier**-2))
    return min(20.0, claim.rate * math.sqrt(claim.steps * variance))


def _noise_at(claim: Claim, shift: float) -> float:
    """Return the noise multiplier at which a canary shifts its score so far: `_shift` the other way."""
    return float(1 / math.sqrt(math.log1p((shift / claim.rate) ** 2 / claim.steps)))


class _Family:
    """The claimed run with other noise multipliers: what it acts like is one of them.

    Each member's trade-off curve is read from its privacy curve, rounded in its favour; so the claim itself
    is refuted only by what a run as claimed would do with the chance that was asked for.
    """

    def __init__(self, claim: Claim) -> None:
        self.claim, self.delta = claim, rational(claim.delta)
        fine = math.sqrt(
            0.01 * claim.epsilon / claim.steps
        )  # rounding up by cells adds steps * width^2 at most
        self._grid = max((width for width in GRIDS if width <= fine), default=GRIDS[0])

    def p_value(self, seen: Guesses) -> float:
        """Return how probable so many right guesses are under the claim, at most."""
        return fdp.p_value(seen.right, seen.made, seen.canaries, self._curve(0.0))

    def epsilon_lower(self, seen: Guesses, confidence: float) -> float:
        """Return the epsilon, at the claim's delta, of the noisiest member that is refuted no more."""

        def refuted(log_scale: float) -> bool:
            curve = self._curve(log_scale)
            return fdp.refuted(seen.right, seen.made, seen.canaries, curve, confidence)

        mu = fdp.mu_lower(seen.right, seen.made, seen.canaries, confidence=confidence)
        # Without a mu not even a run that tells nothing is refuted; so much noise tells next to nothing.
        if mu == 0.0 or (noise := _noise_at(self.claim, mu)) > LOUDEST:
            return 0.0
        guessed = math.log(noise / self.claim.noise_multiplier)
        middle, width = round(guessed / FINE), START
        if refuted(middle * FINE):
            low, high = middle - width, middle
            while refuted(low * FINE):
                if _shift(self.claim, self._sigma(low * FINE)) > FARTHEST:
                    return self._epsilon(low * FINE)
                low, high, width = low - 2 * width, low, 2 * width
        else:
            low, high = middle, middle + width
            while not refuted(high * FINE):
                low, high, width = high, high + 2 * width, 2 * width
                if self._sigma(high * FINE) > LOUDEST:
                    return 0.0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if refuted(middle * FINE) else (middle, high)
        return self._epsilon(high * FINE)

    def _sigma(self, log_scale: float) -> float:
        return self.claim.noise_multiplier * math.exp(log_scale)

    def _epsilon(self, log_scale: float) -> float:
        if log_scale == 0.0:
            return self.claim.epsilon
        return float_down(plan_epsilon(self.claim.event(self._sigma(log_scale)), self.delta))

    def _curve(self, log_scale: float) -> fdp.Curve:
        most = 4 * max(1.0, self.claim.epsilon) * math.exp(max(0.0, -2 * log_scale))
        return _curve(self.claim.event(self._sigma(log_scale)), min(most, WIDEST), self._grid)


@functools.lru_cache(maxsize=128)
def _curve(event: Event, most: float, grid: float) -> fdp.Curve:
    epsilons = np.linspace(0.0, most, POINTS).tolist()
    return fdp.Curve(epsilons, privacy_curve(event, epsilons, grid=grid))


def _untested(subject: Subject) -> tuple[str, ...]:
    missing = []
    if subject.sample is None:
        missing.append("the sampling law: no sampler was passed in")
    if subject.contribution is None:
        missing.append("the clip bound on its own: no clipping was passed in")
    if not subject.fresh:
        missing.append("independence over steps: this run's noise is correlated on purpose")
    return tuple(missing)
