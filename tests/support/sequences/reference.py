"""What sequences may cost whom: who was in what, and the price of each release from the definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from sfumato.core.event import Event, Gaussian, Laplace, PureDP, Repeated
from sfumato.core.losses import BOUNDLESS, UNIT

Person = tuple[str, str]

# What one release may cost, from the definitions


def pure(event: Event) -> Fraction | None:
    """The exact epsilon of an event; None where it has none."""
    match event:
        case PureDP(epsilon=epsilon):
            return epsilon
        case Laplace(noise_multiplier=scale):
            return 1 / scale
        case Repeated(event=inner, times=times):
            one = pure(inner)
            return None if one is None else times * one
        case _:
            return None


def renyi(event: Event, order: float) -> float:
    """The Rényi divergence of an event (Mironov 2017, table II)."""
    match event:
        case Gaussian(noise_multiplier=scale):
            return order / (2 * float(scale) ** 2)
        case Laplace(noise_multiplier=scale):
            up = math.log(order / (2 * order - 1)) + (order - 1) / float(scale)
            down = math.log((order - 1) / (2 * order - 1)) - order / float(scale)
            return _logsum(up, down) / (order - 1)
        case PureDP(epsilon=epsilon):
            odds = float(epsilon)
            yes, no = -math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds))
            parts = order * yes + (1 - order) * no, order * no + (1 - order) * yes
            return _logsum(*parts) / (order - 1)
        case Repeated(event=inner, times=times):
            return times * renyi(inner, order)
    raise AssertionError(event)


def _logsum(one: float, other: float) -> float:
    return max(one, other) + math.log1p(math.exp(-abs(one - other)))


ORDERS = sorted({1 + 2 ** (step / 16) for step in range(-48, 161)})


def total(charges: list[Event], delta: float) -> float:
    """The epsilon of several releases together: by adding up, or by their Rényi losses at some order."""
    exact = [pure(event) for event in charges]
    best = math.inf if None in exact else float(sum(one for one in exact if one is not None))
    if delta:
        for order in ORDERS:
            more = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
            best = min(best, sum(renyi(event, order) for event in charges) + max(more, 0))
    return best


# The reference


@dataclass
class Charge:
    """One release as somebody's budget felt it; no event: it was taken back before anything left."""

    account: str
    event: Event | None


def population_of(account: str) -> str:
    """The population of an account that is called POPULATION#BLOCK/SHARE or POPULATION/SHARE."""
    return account.partition("/")[0].partition("#")[0]


@dataclass
class Held:
    """Who may be in a version, and whose budget it is."""

    people: frozenset[Person]
    populations: frozenset[str]
    only: frozenset[str] = frozenset()  # of a view of some blocks: which accounts pay for it


@dataclass
class Reference:
    """Who was in what, and what each of them has paid, by the account that paid for them."""

    versions: dict[str, Held] = field(default_factory=dict)
    accounts: dict[str, list[Charge]] = field(default_factory=dict)
    people: dict[Person, list[Charge]] = field(default_factory=dict)
    promised: dict[str, Fraction] = field(default_factory=dict)
    agreed: set[Person] = field(default_factory=set)
    homes: dict[Person, str] = field(default_factory=dict)  # the block of everybody whose population has some

    def enter(self, spec: str, people: frozenset[Person], populations: frozenset[str]) -> None:
        """A version is also that of those who were in the dataset before it."""
        dataset = spec.partition("@")[0]
        older = [held.populations for name, held in self.versions.items() if name.startswith(f"{dataset}@")]
        self.versions[spec] = Held(people, populations.union(*older))

    def derive(self, spec: str, parents: list[str], people: frozenset[Person] | None = None) -> None:
        held = [self.versions[parent] for parent in parents]
        everybody = frozenset().union(*(one.people for one in held))
        owed = frozenset().union(*(one.populations for one in held))
        self.enter(spec, everybody if people is None else everybody & people, owed)

    def charged(self, spec: str, accounts: dict[str, Charge], purpose: str) -> None:
        """Note a release that was admitted, with the accounts that the ledger says have paid.

        Everybody in the version must have paid, from an account of their own population.
        """
        held = self.versions[spec]
        assert {population_of(account) for account in accounts} == held.populations, "somebody paid nothing"
        homes = {account.partition("/")[0] for account in accounts}
        assert not held.only or homes == held.only, f"a view of {held.only} charged {homes}"
        for account, charge in accounts.items():
            self.accounts.setdefault(account, []).append(charge)
        for person in held.people if purpose != "research" else held.people & self.agreed:
            home = f"{person[0]}#{self.homes[person]}" if person in self.homes else person[0]
            mine = [charge for account, charge in accounts.items() if account.partition("/")[0] == home]
            assert len(mine) == 1, (
                f"{person} of {home} was in it, and paid {len(mine)} times: somebody paid nothing"
            )
            self.people.setdefault(person, []).append(mine[0])

    def check_people(self) -> None:
        """Nobody ever loses more than they were promised."""
        for (population, name), charges in self.people.items():
            shares: dict[str, list[Event]] = {}
            for charge in charges:
                if charge.event is not None:
                    shares.setdefault(charge.account, []).append(charge.event)
            delta = 1e-6 if population == "patients" else 0
            spent = sum(total(paid, delta) for paid in shares.values())
            limit = float(self.promised[population])
            assert spent <= limit * (1 + 1e-9), f"{name} of {population} lost {spent} of {limit}"

    def check_account(self, account: str, epsilon: Fraction, spent: dict[float, int]) -> None:
        """The book has charged an account with what took place, and no less."""
        paid = [charge.event for charge in self.accounts.get(account, []) if charge.event is not None]
        exact = [pure(event) for event in paid]
        if None in exact:
            assert epsilon >= BOUNDLESS
        else:
            assert epsilon == sum(one for one in exact if one is not None), f"{account}: {epsilon}"
        for order, units in spent.items():
            expected = sum(renyi(event, order) for event in paid)
            assert abs(units / UNIT - expected) <= 1e-9 + 1e-6 * expected, f"{account} at order {order}"
