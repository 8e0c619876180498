"""What a training run hands to its audit: what it claims, and its own code as callables.

The room that trains and this one do not know each other. Whoever joins them builds a `Subject`, and hands the
run's release a guard that audits it: an `AuditFailed` that comes back keeps the model in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.audit.canaries import Step
from sfumato.audit.direct.clipping import Contribution
from sfumato.audit.direct.sampling import Sample
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import Event, Gaussian, PoissonSampled, Repeated
from sfumato.core.losses import ADD_OR_REMOVE, plan_epsilon
from sfumato.core.numbers import Amount, float_up, rational


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run of DP-SGD says it costs: the event, and its epsilon at delta.

    >>> claim = Claim.of(noise_multiplier="8.85", rate="0.137", steps=292, delta="1e-5")
    >>> 0.98 < claim.epsilon < 1.02
    True

    Args:
        noise_multiplier: standard deviation of the noise over the clip bound.
        rate: the chance of a unit to be in a step.
        steps: how many.
        delta: of the claim.
        epsilon: of the claim; what the event costs at delta, by dp-accounting, rounded up.
        unit: privacy unit. The relation is add-or-remove-one.
    """

    noise_multiplier: float
    rate: float
    steps: int
    delta: float
    epsilon: float
    unit: str = "image"

    @classmethod
    def of(
        cls, *, noise_multiplier: Amount, rate: Amount, steps: int, delta: Amount, unit: str = "image"
    ) -> Claim:
        """Price a mechanism.

        Raises:
            InvalidRequest: a parameter out of range.
        """
        return cls.of_event(Repeated(PoissonSampled(rate, Gaussian(noise_multiplier)), steps), delta, unit)

    @classmethod
    def of_event(cls, event: Event, delta: Amount, unit: str = "image") -> Claim:
        """Read a claim out of an event: Gaussian noise on a Poisson sample, a number of times.

        Raises:
            InvalidRequest: an event of another kind.
        """
        steps, inner = (event.times, event.event) if isinstance(event, Repeated) else (1, event)
        rate, noise = (inner.rate, inner.event) if isinstance(inner, PoissonSampled) else (rational(1), inner)
        if not isinstance(noise, Gaussian) or steps < 1 or not rate:
            raise InvalidRequest(
                "an audit of DP-SGD is for Gaussian noise on Poisson samples, repeated; got an event of kind "
                f"{event.kind!r} over {inner.kind!r} over {noise.kind!r}"
            )
        exact = rational(delta, name="delta")
        if not 0 < exact < 1:
            raise InvalidRequest(f"delta lies between 0 and 1, got {delta!r}")
        whole = Repeated(PoissonSampled(rate, noise), steps)
        return cls(
            float(noise.noise_multiplier),
            float(rate),
            steps,
            float(exact),
            float_up(plan_epsilon(whole, exact, ADD_OR_REMOVE)),
            unit,
        )

    @classmethod
    def of_receipt(cls, body: Mapping[str, Any], delta: Amount | None = None, unit: str = "image") -> Claim:
        """Read a claim out of a receipt's body.

        Args:
            body: of the receipt of a run.
            delta: of the claim; None: what the receipt names.
            unit: privacy unit.

        Raises:
            InvalidRequest: it has no event of DP-SGD, or names no delta and none is given.
        """
        plan = body.get("plan")
        plan = plan if isinstance(plan, Mapping) else {}
        data = body.get("settled_event", plan.get("event"))  # a run that stopped early settled to less
        if plan.get("mechanism") == "dp-ftrl":
            raise InvalidRequest(
                "this run has correlated noise (dp-ftrl), and the audit is of DP-SGD: it would test another "
                "claim"
            )
        if not isinstance(data, Mapping):
            raise InvalidRequest("this receipt has no event: it is not one of a private training run")
        given = delta if delta is not None else delta_of(body)
        if given is None:
            raise InvalidRequest("this receipt names no delta: give it, for example delta='1e-5'")
        return cls.of_event(Event.from_data(data), given, unit)

    def event(self, noise_multiplier: float | None = None) -> Event:
        """Return the event, with another noise multiplier if one is given."""
        sigma = self.noise_multiplier if noise_multiplier is None else noise_multiplier
        return Repeated(PoissonSampled(self.rate, Gaussian(sigma)), self.steps)

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "rate": self.rate,
            "steps": self.steps,
            "unit": self.unit,
            "relation": ADD_OR_REMOVE,
        }


def delta_of(body: Mapping[str, Any]) -> str | None:
    """Return the delta that a receipt names; None: it names none."""
    plan = body.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    for place in (body.get("guarantee"), plan.get("parameters"), plan, body.get("facts")):
        if isinstance(place, Mapping) and (delta := place.get("delta")) is not None:
            return str(delta)
    return None


@dataclass(frozen=True, slots=True)
class Subject:
    """A run to be audited.

    Args:
        claim: what it says.
        step: one step of its own code over canaries (see `canaries.Step`).
        contribution: its own clipping (see `direct.clipping.Contribution`), in units of the clip bound;
            None: the clip bound is not tested on its own.
        size: numbers in a gradient given to `contribution`.
        several: whether `contribution` takes several gradients of one unit.
        sample: its own sampler (see `direct.sampling.Sample`); None: the sampling is not tested on its own.
        units: how many privacy units the sampler draws from.
        fresh: whether each step's noise is independent; False under matrix factorisation.
    """

    claim: Claim
    step: Step
    contribution: Contribution | None = None
    size: int = 64
    several: bool = True
    sample: Sample | None = None
    units: int = 0
    fresh: bool = True
