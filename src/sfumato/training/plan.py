"""What a run will cost and promise, before anything is touched: its noise, its event, its statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sfumato.core.accounting import Kind, Share
from sfumato.core.calibration import Spending, noise_multiplier_for, training_event
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.event import Event, Repeated
from sfumato.core.gate import Plan
from sfumato.core.losses import ADD_OR_REMOVE, plan_epsilon, rough_epsilon
from sfumato.core.numbers import brief, float_up, rational, text
from sfumato.core.policy import FILE_NAME, Policy, Population
from sfumato.training.settings import TrainingSettings, fraction

if TYPE_CHECKING:
    from sfumato.data.use import Use

LIMITS = (
    "It covers the model and everything that was computed from its noisy steps; not the choice of settings "
    "by looking at the data, and not other uses of the data.",
    "The settings (rate, batch, clip, number of steps) must not have been computed from the data.",
    "Gradients are summed, and noise is made, in floating point: see docs/guarantees/training.md for what is "
    "exact and what is not.",
)

#: What a run says of its plan itself; a use says the rest.
_OWN = (
    "mechanism",
    "guarantee",
    "statement",
    "limits",
    "parameters",
    "event",
    "population",
    "share",
    "delta",
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run with everything that follows from its settings and the policy.

    Args:
        settings: with population and share filled in.
        plan: for the gate.
        noise_multiplier: exact; the noise's deviation is this times the clip.
        delta: at which `price` is told.
        price: the run's epsilon, rounded up, as its share charges it.
        unit, kind: of the population and of its share.
    """

    settings: TrainingSettings
    plan: Plan
    noise_multiplier: Fraction
    delta: Fraction
    price: Fraction
    unit: str
    kind: Kind

    @property
    def steps(self) -> int:
        """How many steps the run reserves."""
        return self.settings.steps

    @property
    def rate(self) -> Fraction:
        """Probability with which each unit is in a step."""
        return fraction(self.settings.rate)

    def deviation(self, sensitivity: float) -> float:
        """Return the deviation of the noise for a sum of this sensitivity, rounded up."""
        return float_up(self.noise_multiplier * Fraction(sensitivity))

    def taken(self, steps: int) -> Event | None:
        """Return the event of the first `steps` steps; None: all of them."""
        if steps >= self.steps:
            return None
        assert isinstance(self.plan.event, Repeated)
        return Repeated(self.plan.event.event, self.settings.rounds(steps))

    def of(self, used: Use) -> PlannedRun:
        """Return the run on a version of the catalogue: its datasets, consent, and everybody who pays."""
        plan = self.plan
        fields = {name: getattr(plan, name) for name in _OWN}
        return replace(self, plan=used.plan(**fields))

    def resting_on(self, assumes: Iterable[str]) -> PlannedRun:
        """Return it with further assumptions among the limits of its guarantee."""
        limits = (*self.plan.limits, *assumes)
        return replace(self, plan=replace(self.plan, limits=limits))

    def spending(self) -> Spending:
        """Return what tells people how much is spent so far."""
        return Spending(self.plan.event, self.delta, ADD_OR_REMOVE, self.price)

    def explain(self) -> str:
        """Return the plan for people, before anything is charged."""
        asked = self.settings
        way = "composed privacy loss distributions" if self.kind == "sum" else "Rényi losses"
        lines = [
            f"{asked.steps} steps; each {self.unit} is in a step with probability {brief(self.rate)} "
            f"({brief(fraction(asked.expected_batch))} on average, {brief(fraction(asked.epochs))} epochs).",
            f"Each {self.unit}'s gradient is clipped to {asked.clip:g} ({asked.clipping}); noise multiplier "
            f"{text(self.noise_multiplier)}.",
            f"Noise on each value of a mean gradient: {self.deviation(asked.clip) / asked.normaliser:.3g}.",
            f"Charged before the first step, to {asked.population}/{asked.share}: epsilon "
            f"{brief(self.price)} at delta {brief(self.delta)}, by {way}.",
            f"Unit: {self.unit}. Neighbours differ by one {self.unit}, added or removed.",
        ]
        if self.kind == "sum":
            lines.append("If it stops early it keeps its whole price: the share is of kind sum.")
        return "\n".join(lines)


def plan_run(settings: TrainingSettings, policy: Policy | None) -> PlannedRun:
    """Return the plan of a run.

    Raises:
        PolicyRefused: nobody could pay, or the population's unit or relation is none that training protects.
        InvalidRequest, UnknownName: several could pay, or no noise is enough.
    """
    name, population = _population(settings, policy)
    share_name, kind, share_delta = _share(settings, name, population)
    settings = replace(settings, population=name, share=share_name, epochs=0)
    delta = fraction(settings.delta)
    if kind == "sum" and not delta:
        raise InvalidRequest(
            "a share of kind 'sum' needs the delta that this run takes, such as delta='1e-5'"
        )
    at = delta or share_delta
    sigma = fraction(settings.noise_multiplier)
    rate = fraction(settings.rate) if settings.mechanism == "dp-sgd" else Fraction(1)
    rounds = settings.rounds(settings.steps)
    if not sigma:
        sigma = noise_multiplier_for(
            epsilon=settings.epsilon,
            delta=at,
            rate=rate,
            steps=rounds,
            relation=population.relation,
            by="pld" if kind == "sum" else "renyi",
        )
    event = training_event(sigma, rate, rounds)
    price = plan_epsilon(event, at) if kind == "sum" else _by_filter(event, fraction(settings.epsilon), at)
    plan = Plan(
        action="train",
        mechanism=settings.mechanism,
        guarantee="proven",
        statement=_statement(settings, population.unit, price, at),
        limits=LIMITS + (_DEBUG if settings.insecure_debug else ()),
        parameters=dict(settings.parameters()) | {"noise_multiplier": text(sigma)},
        purpose=settings.purpose,
        event=event,
        population=name,
        share=share_name,
        delta=delta if kind == "sum" else 0,
        datasets=settings.datasets,
        consent=settings.consent,
    )
    return PlannedRun(settings, plan, sigma, at, price, population.unit, kind)


_DEBUG = ("insecure_debug was on: losses on private data were shown, which the guarantee does not cover.",)


def _by_filter(event: Event, target: Fraction, delta: Fraction) -> Fraction:
    """Return what a run amounts to in a filter: as one of what was asked, or else by its losses alone."""
    if target and (whole := Share.new("filter", target, delta)).fits(whole.charge(event)):
        return whole.spent(whole.charge(event))[0]
    return rough_epsilon(event, delta)


def _statement(settings: TrainingSettings, unit: str, price: Fraction, delta: Fraction) -> str:
    how = (
        f"each step on a Poisson sample (rate {text(fraction(settings.rate))})"
        if settings.mechanism == "dp-sgd"
        else f"noise correlated over {settings.bands} steps, each {unit} in one of {settings.period} steps"
    )
    return (
        f"The trained model is ({brief(price)}, {brief(delta)})-differentially private for one {unit}, added "
        f"or removed, with all its images: {settings.steps} steps planned, {how}, gradients clipped per "
        f"{unit}, Gaussian noise from a cipher keyed by the system. It assumes that settings are public and "
        "that the noise stays secret."
    )


def _population(settings: TrainingSettings, policy: Policy | None) -> tuple[str, Population]:
    if policy is None:
        raise PolicyRefused(
            "private training spends a privacy budget, and there is no project here to charge. Run `sfumato "
            f"init` in the folder of your data, and declare a population in {FILE_NAME}",
            rule="populations",
        )
    fit = {name: one for name, one in policy.populations.items() if not one.pixels}
    if settings.population:
        if settings.population not in policy.populations:
            raise UnknownName("population", settings.population, policy.populations)
        fit = {settings.population: policy.populations[settings.population]}
    if not fit:
        raise PolicyRefused(
            f"training is charged to a population of people or images, and {FILE_NAME} declares none: add "
            '[populations.NAME] with unit = "image" (or person, patient), epsilon and delta',
            rule="populations",
        )
    if len(fit) > 1:
        raise InvalidRequest(f"the populations {', '.join(fit)} could pay: say which, by population=...")
    name, found = next(iter(fit.items()))
    if found.pixels or found.relation != ADD_OR_REMOVE:
        raise PolicyRefused(
            f"training protects a person, patient or image that is added or removed, and the population "
            f"{name!r} is of {found.unit}, {found.relation}: charge another one",
            rule=f"populations.{name}.relation",
        )
    return name, found


def _share(settings: TrainingSettings, name: str, population: Population) -> tuple[str, Kind, Fraction]:
    shares = population.opened_shares()
    if settings.share and settings.share not in shares:
        raise UnknownName(f"share of {name}", settings.share, shares)
    if not settings.share and len(shares) > 1:
        raise InvalidRequest(f"the population {name!r} has the shares {', '.join(shares)}: say which pays")
    share = settings.share or next(iter(shares))
    terms = shares[share]
    return share, terms.kind, rational(terms.delta, name="delta")
