"""What could still be done with what is left, and how it came to this: for people who plan releases.

Answers come from the same check that admits a release (`Share.fits`), so each of them would be admitted now.
They are computed from the ledger alone, never from data, and cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from sfumato.core.accounting import Share, Totals
from sfumato.core.blocks import split
from sfumato.core.errors import UnknownName
from sfumato.core.event import Event, Gaussian, Laplace, PoissonSampled, PureDP, Repeated
from sfumato.core.ledger import Balance, Ledger
from sfumato.core.losses import ADD_OR_REMOVE, pure_loss, rough_epsilon
from sfumato.core.numbers import brief, text

#: Counting stops here. A plan that is priced by its loss distribution costs time for every price.
MOST = {"filter": 10**9, "sum": 10**5}
#: Noise multipliers are searched up to here.
NOISIEST = Fraction(2**20)
SEVERAL = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class Point:
    """A share after one row of the ledger.

    Args:
        row: number of the row; kind: what it was.
        epsilon, delta: what the share had spent then, rounded up.
        part: of the share's epsilon, 0 to 1.
    """

    row: int
    kind: str
    at: str
    share: str
    epsilon: Fraction
    delta: Fraction
    part: float


def timeline(ledger: Ledger) -> Iterator[Point]:
    """Iterate over the rows that changed what a share has spent, oldest first."""
    shares: dict[str, Share] = {}
    for row in ledger.entries():
        if row.kind == "share":
            shares[row.share] = Share.from_data(row.body["terms"])
        if row.share not in shares or "after" not in row.body:
            continue
        terms = shares[row.share]
        epsilon, delta = terms.spent(Totals.from_data(row.body["after"]))
        part = float(epsilon / terms.epsilon) if terms.epsilon else 1.0
        yield Point(row.seq, row.kind, row.body["at"], row.share, epsilon, delta, part)


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that could still be done: `value` is a count, a noise multiplier or an epsilon."""

    question: str
    value: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a share has left, rounded down, and what could be done with it.

    Where the population has blocks: for a release that charges all of `blocks`, of which `tightest` has the
    least epsilon left.
    """

    population: str
    share: str
    kind: str
    left_epsilon: str
    left_delta: str
    answers: tuple[Answer, ...]
    blocks: int = 0
    tightest: str = ""

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"answers": [asdict(answer) for answer in self.answers]}


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask beside the standard questions.

    Args:
        gaussian, laplace: noise multipliers: how many more such releases?
        training: pairs of sampling rate and noise multiplier: how many steps of DP-SGD?
    """

    gaussian: tuple[Fraction, ...] = (Fraction(10), Fraction(50))
    laplace: tuple[Fraction, ...] = (Fraction(50),)
    training: tuple[tuple[Fraction, Fraction], ...] = ((Fraction(1, 100), Fraction(11, 10)),)


def outlook(ledger: Ledger, questions: Questions | None = None, block: str = "") -> list[Outlook]:
    """Answer for every share what could be released now with what is left of it.

    A share of a population with blocks is answered for a release that charges all of them.

    >>> ledger = Ledger(":memory:")
    >>> _ = ledger.open_population("residents", epsilon=1, delta="1e-6", unit="person")
    >>> ledger.open_share("residents", "all", kind="filter", epsilon=1, delta="1e-6")
    >>> outlook(ledger, Questions(gaussian=(Fraction(50),)))[0].answers[0].value
    '121'

    Args:
        block: answer for a release that charges this block alone.

    Raises:
        UnknownName: no population has such a block.
    """
    together: dict[tuple[str, str], list[Balance]] = {}
    for balance in ledger.balances():
        population, own = split(balance.population)
        if block in ("", own):
            together.setdefault((population, balance.share), []).append(balance)
    if block and not together:
        known = dict.fromkeys(own for one in ledger.balances() if (own := split(one.population)[1]))
        raise UnknownName("block", block, list(known)[-24:])
    asked = questions or Questions()
    return [_outlook(ledger, population, found, asked) for (population, _), found in together.items()]


def _outlook(ledger: Ledger, population: str, found: Sequence[Balance], questions: Questions) -> Outlook:
    worst = max(found, key=lambda balance: balance.spent_epsilon)
    terms = ledger.share(worst.population, worst.share)
    before = _most_spent(ledger.totals(one.population, one.share) for one in found)
    left = max(terms.epsilon - worst.spent_epsilon, Fraction(0))
    delta = Fraction(0)
    if terms.kind == "sum":
        delta = max(min(terms.delta - one.delta for one in before), delta)
    tightest = split(worst.population)[1]
    return Outlook(
        worst.population if len(found) == 1 else population,
        worst.share,
        terms.kind,
        brief(left, up=False),
        brief(delta if terms.kind == "sum" else terms.delta, up=False),
        tuple(_answers(_Room(terms, before, delta), questions)),
        len(found) if tightest else 0,
        tightest,
    )


def _most_spent(every: Iterable[Totals]) -> tuple[Totals, ...]:
    """Return the totals that decide: none of them lies within another. Most often that is one."""
    found: list[Totals] = []
    for one in dict.fromkeys(every):
        if not any(one.within(other) for other in found):
            found = [*(other for other in found if not other.within(one)), one]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Room:
    """A share as it stands; a plan in a share of kind `sum` takes all of the delta that is left."""

    terms: Share
    before: tuple[Totals, ...]
    delta: Fraction

    @property
    def slow(self) -> bool:
        """Whether prices are composed loss distributions, a good part of a second each."""
        return self.terms.kind == "sum" and self.delta > 0

    def fits(self, event: Event) -> bool:
        """Whether the share would admit it."""
        charge = self.terms.charge(event, Fraction(0) if _pure(event) else self.delta)
        return self.admits(charge)

    def admits(self, charge: Totals) -> bool:
        """Whether there is room for a price in every account."""
        return all(self.terms.fits(one.plus(charge)) for one in self.before)

    def surely(self, event: Event) -> bool:
        """The same by a price that is fast and never too low."""
        if not self.slow or _pure(event):
            return self.fits(event)
        price = min(rough_epsilon(event, self.delta, self.terms.relation), pure_loss(event))
        return self.admits(Totals(price, self.delta))

    def count(self, event: Event) -> str:
        """How often an event fits: exact, or to half a percent where every price takes time."""
        most = MOST[self.terms.kind]
        low = _most(lambda times: self.surely(Repeated(event, times)), 0, 1, most, 0)
        if self.slow and not _pure(event) and low < most:
            low = _most(lambda times: self.fits(Repeated(event, times)), low, low + 1, most, 200)
        return f"{most} or more" if low >= most else str(low)

    def noise(self, kind: Callable[[Fraction], Event], times: int) -> str:
        """The least noise multiplier with which `times` more fit, rounded up (to a thousandth of it)."""

        def sure(value: Fraction) -> bool:
            return self.surely(Repeated(kind(value), times))

        def fits(value: Fraction) -> bool:
            return self.fits(Repeated(kind(value), times))

        low = high = Fraction(1, 1024)
        while not sure(high):
            low, high = high, high * 2
            if high > NOISIEST:
                return "none"
        high = _least(sure, low, high, Fraction(10001, 10000))
        if self.slow:
            low = high * Fraction(3, 4)
            while low > Fraction(1, 1024) and fits(low):
                low, high = low * Fraction(3, 4), low
            high = _least(fits, low, high, Fraction(1001, 1000))
        return text(_up(high))

    def epsilon(self) -> str:
        """The largest epsilon of one pure release, rounded down."""
        exact = self.terms.epsilon - max(one.epsilon for one in self.before)
        if exact > 0 and self.fits(PureDP(exact)):
            return text(exact)
        low, high = Fraction(0), self.terms.epsilon
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.fits(PureDP(middle)) else (low, middle)
        return text(Fraction(math.floor(low * 10**9), 10**9))


def _answers(room: _Room, questions: Questions) -> Iterable[Answer]:
    for sigma in questions.gaussian:
        yield Answer(f"Gaussian releases with noise multiplier {text(sigma)}", room.count(Gaussian(sigma)))
    for scale in questions.laplace:
        yield Answer(f"Laplace releases with noise multiplier {text(scale)}", room.count(Laplace(scale)))
    for times in SEVERAL:
        yield Answer(f"least noise multiplier of {times} more Gaussian", room.noise(Gaussian, times))
    yield Answer("largest epsilon of one more pure release", room.epsilon())
    if room.terms.relation != ADD_OR_REMOVE:
        return  # Poisson sampling is not accounted for there
    for rate, sigma in questions.training:
        steps = room.count(PoissonSampled(rate, Gaussian(sigma)))
        yield Answer(f"training steps at sampling rate {text(rate)}, noise multiplier {text(sigma)}", steps)


def _most(fits: Callable[[int], bool], low: int, high: int, most: int, coarse: int) -> int:
    """Return the largest count that fits, or one that is at most a `coarse`-th below it."""
    step = max(1, high - low)
    while high <= most and fits(high):
        step = max(step * 2, high // 4)
        low, high = high, min(high + step, most) if high < most else most + 1
    while high - low > (max(1, low // coarse) if coarse else 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _least(fits: Callable[[Fraction], bool], low: Fraction, high: Fraction, ratio: Fraction) -> Fraction:
    """Return a value that fits, at most `ratio` times one that does not."""
    while high > low * ratio:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _pure(event: Event) -> bool:
    while isinstance(event, (Repeated, PoissonSampled)):
        event = event.event
    return not isinstance(event, Gaussian)


def _up(value: Fraction) -> Fraction:
    places = max(0, 4 - math.ceil(math.log10(float(value))))
    return Fraction(math.ceil(value * 10**places), 10**places)
