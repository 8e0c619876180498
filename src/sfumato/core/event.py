"""Events: what was done to the data, as plain data.

The ledger stores events, not epsilons: a loss is computed from the event, so a better accountant can read
the same history again. Every number in an event is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, ClassVar

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.numbers import Amount, rational, text

MAX_TIMES = 10**9
MAX_DEPTH = 8


@dataclass(frozen=True)
class Event:
    """Base of all events; use a subclass.

    >>> event = Repeated(PoissonSampled("0.01", Gaussian(1.1)), 1000)
    >>> Event.from_data(event.to_data()) == event
    True
    """

    kind: ClassVar[str] = ""

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON; rationals are spelled exactly."""
        data: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):
            data[field.name] = _plain(getattr(self, field.name))
        return data

    @staticmethod
    def from_data(data: Mapping[str, Any], depth: int = 0) -> Event:
        """Read an event back from plain data.

        Raises:
            InvalidRequest: a field is missing, unknown or out of range, or the nesting is too deep.
        """
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"an event may be nested {MAX_DEPTH} deep at most")
        if not isinstance(data, Mapping):
            raise InvalidRequest(f"an event is a table with a kind, got {type(data).__name__}")
        kind = data.get("kind", "")
        if not isinstance(kind, str) or kind not in KINDS:
            raise UnknownName("event kind", str(kind), KINDS)
        values: dict[str, Any] = {}
        for name, value in data.items():
            if name == "kind":
                continue
            if isinstance(value, Mapping):
                value = Event.from_data(value, depth + 1)
            elif isinstance(value, list):
                value = tuple(Event.from_data(item, depth + 1) for item in value)
            values[name] = value
        try:
            return KINDS[kind](**values)
        except TypeError as error:
            raise InvalidRequest(f"an event of kind {kind!r} does not read: {error}") from error


@dataclass(frozen=True)
class NoEvent(Event):
    """Nothing with a differential-privacy guarantee was done: a filter such as redaction."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True, init=False)
class Gaussian(Event):
    """Gaussian noise; `noise_multiplier` is its standard deviation over the L2 sensitivity."""

    kind: ClassVar[str] = "gaussian"
    noise_multiplier: Fraction

    def __init__(self, noise_multiplier: Amount) -> None:
        object.__setattr__(self, "noise_multiplier", _positive(noise_multiplier, "noise_multiplier"))


@dataclass(frozen=True, init=False)
class Laplace(Event):
    """Laplace noise; `noise_multiplier` is its scale over the L1 sensitivity."""

    kind: ClassVar[str] = "laplace"
    noise_multiplier: Fraction

    def __init__(self, noise_multiplier: Amount) -> None:
        object.__setattr__(self, "noise_multiplier", _positive(noise_multiplier, "noise_multiplier"))


@dataclass(frozen=True, init=False)
class PureDP(Event):
    """Any mechanism known to be epsilon-DP and nothing more."""

    kind: ClassVar[str] = "pure"
    epsilon: Fraction

    def __init__(self, epsilon: Amount) -> None:
        object.__setattr__(self, "epsilon", rational(epsilon, name="epsilon"))


@dataclass(frozen=True, init=False)
class ApproxDP(Event):
    """Any mechanism known to be (epsilon, delta)-DP and nothing more."""

    kind: ClassVar[str] = "approx"
    epsilon: Fraction
    delta: Fraction

    def __init__(self, epsilon: Amount, delta: Amount) -> None:
        object.__setattr__(self, "epsilon", rational(epsilon, name="epsilon"))
        object.__setattr__(self, "delta", probability(delta, "delta"))


@dataclass(frozen=True, init=False)
class ZCDP(Event):
    """Any mechanism known to be rho-zCDP and nothing more."""

    kind: ClassVar[str] = "zcdp"
    rho: Fraction

    def __init__(self, rho: Amount) -> None:
        object.__setattr__(self, "rho", rational(rho, name="rho"))


@dataclass(frozen=True, init=False)
class PoissonSampled(Event):
    """`event` on a sample that takes every privacy unit in independently with probability `rate`."""

    kind: ClassVar[str] = "poisson"
    rate: Fraction
    event: Event

    def __init__(self, rate: Amount, event: Event) -> None:
        object.__setattr__(self, "rate", probability(rate, "rate"))
        object.__setattr__(self, "event", _event(event))


@dataclass(frozen=True, init=False)
class Repeated(Event):
    """`event`, `times` times over (each may depend on the results before)."""

    kind: ClassVar[str] = "repeated"
    event: Event
    times: int

    def __init__(self, event: Event, times: int) -> None:
        if isinstance(times, bool) or not isinstance(times, int) or not 0 <= times <= MAX_TIMES:
            raise InvalidRequest(f"times must be a whole number in 0..{MAX_TIMES}, got {times!r}")
        object.__setattr__(self, "event", _event(event))
        object.__setattr__(self, "times", times)


@dataclass(frozen=True, init=False)
class Composed(Event):
    """Several events, one after the other (each may depend on the results before)."""

    kind: ClassVar[str] = "composed"
    events: tuple[Event, ...]

    def __init__(self, events: tuple[Event, ...] | list[Event]) -> None:
        if not isinstance(events, (tuple, list)):
            raise InvalidRequest(f"events must be a list of events, got {type(events).__name__}")
        object.__setattr__(self, "events", tuple(_event(event) for event in events))


KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (NoEvent, Gaussian, Laplace, PureDP, ApproxDP, ZCDP, PoissonSampled, Repeated, Composed)
}


def probability(value: Amount, name: str) -> Fraction:
    """Return `value` as an exact rational in 0..1."""
    exact = rational(value, name=name)
    if exact > 1:
        raise InvalidRequest(f"{name} is a probability and must lie in 0..1, got {value!r}")
    return exact


def _positive(value: Amount, name: str) -> Fraction:
    exact = rational(value, name=name)
    if exact == 0:
        raise InvalidRequest(f"{name} must be above 0: without noise there is no guarantee")
    return exact


def _event(value: Any) -> Event:
    if not isinstance(value, Event):
        raise InvalidRequest(f"an event is needed here, got {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Event):
        return value.to_data()
    if isinstance(value, tuple):
        return [item.to_data() for item in value]
    return text(value) if isinstance(value, Fraction) else value
