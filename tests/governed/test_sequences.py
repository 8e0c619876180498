"""Whatever is done in whatever order: no budget comes back, nobody old gets a new one, no refusal tells.

Two neighbouring projects of real parts go through the same sequence; one lacks a person of the other, or has
somebody else in their place. A reference, which knows only who was in what, says what may have been spent.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from sfumato.core import versions as recorded
from sfumato.core.accounting import Share
from sfumato.core.anchor import FileAnchor
from sfumato.core.blocks import chosen
from sfumato.core.errors import BudgetSpent, InvalidRequest, SfumatoError
from sfumato.core.event import Event, Gaussian, Laplace, PureDP, Repeated
from sfumato.core.losses import BOUNDLESS, UNIT

VICTIM = "ada"
OTHERS = ("bob", "cyd", "dan", "eve")
DATASETS = ("d1", "d2", "d3", "d4")
POPULATIONS = ("patients", "staff")
START = datetime(2026, 1, 15, 12, tzinfo=UTC)
Person = tuple[str, str]

events = st.one_of(
    st.sampled_from(["1/10", "1/4", "1/3", "1/2", "1", "3"]).map(PureDP),
    st.sampled_from([1, 3, 8, 20]).map(Laplace),
    st.sampled_from([4, 10, 30]).map(Gaussian),
    st.builds(Repeated, st.sampled_from([Gaussian(20), Laplace(30), PureDP("1/20")]), st.integers(1, 6)),
)
ends = st.sampled_from(["settle", "settle", "settle", "void", "late", "kill"])
shares = st.sampled_from(["care", "runs"])
datasets, populations = st.sampled_from(DATASETS), st.sampled_from(POPULATIONS)
others = st.sampled_from(OTHERS)
crowds = st.sets(others, min_size=1, max_size=3).map(sorted)


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
    """Who is in a version, and whose budget it is."""

    people: frozenset[Person]
    populations: frozenset[str]


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


# The sequences


class Sequences(RuleBasedStateMachine):
    """The same sequence in two neighbouring worlds."""

    versions = Bundle("versions")
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, world: type, memory: Path, clock: type) -> None:
        super().__init__()
        self.world, self.memory, self.clock = world, memory, clock
        self.clock.current = START
        Sequences.counts["sequences"] += 1
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        self.reference = Reference(promised={"patients": Fraction(2), "staff": Fraction(1)})
        self.rows: dict[str, tuple[list[tuple[str, int]], set[Person]]] = {}
        self.backup = False
        self.erased: set[Person] = set()

    @initialize(target=versions, replaced=st.booleans(), sealed=st.booleans())
    def begin(self, replaced: bool, sealed: bool):
        def neighbour(name: str) -> str | None:
            return ("zoe" if replaced else None) if name == VICTIM else name

        self.sealed = sealed
        self.worlds = [
            self.world(self.folder / side, person, sealed=sealed)
            for side, person in (("a", lambda name: name), ("b", neighbour))
        ]
        self.new_rows()
        patients = self.add_source("d1", [VICTIM, "bob", "cyd"], "patients")
        return multiple(patients, self.add_source("d2", [VICTIM, "dan"], "staff"))

    def teardown(self) -> None:
        for world in getattr(self, "worlds", []):
            world.reopen()
            world.check()
            world.close()
        shutil.rmtree(self.folder)
        self.reference.check_people()

    def both(self, what: str, act: Callable) -> tuple[bool, object]:
        """Do the same in both; whatever comes of it must be the same, to the byte, in answer and ledger."""
        said = []
        for world in self.worlds:
            try:
                value = act(world)
                said.append((True, value))
            except SfumatoError as error:
                said.append((False, (type(error).__name__, world.mask(str(error)))))
        assert said[0] == said[1], "the neighbours differ"
        self.new = self.new_rows()
        ok, value = said[0]
        Sequences.counts["steps"] += 1
        Sequences.counts[what if ok else f"{what}: {value[0]}"] += 1
        return ok, value

    def new_rows(self) -> list:
        one, other = (world.rows() for world in self.worlds)
        assert one == other, "the neighbours' ledgers differ"
        return one

    # Data

    def _add(self, dataset: str, source: str, population: str):
        rows, people = self.rows[source]
        ok, value = self.both("add", lambda world: world.add(dataset, source, rows, population))
        if not ok:
            return multiple()
        spec, new = value
        people |= {(population, name) for name, _ in rows}  # who was here as other people's goes on to be so
        for person in people:
            if person[0] == "patients":  # the month in which the ledger first knew of them, for ever
                self.reference.homes.setdefault(person, self.worlds[0].project.ledger.time()[:7])
        if new:
            self.reference.enter(spec, frozenset(people), frozenset({population}))
        return spec

    @rule(target=versions, dataset=datasets, names=crowds, victim=st.booleans(), population=populations)
    def add_new(self, dataset: str, names: list[str], victim: bool, population: str):
        """A source that was never seen: people who join, and people who are here already."""
        return self.add_source(dataset, [VICTIM, *names] if victim else names, population)

    def add_source(self, dataset: str, crowd: list[str], population: str):
        source = f"source{len(self.rows)}"
        # Ages differ from source to source, so that no two are alike in one world and not in the other.
        rows = [(name, 1000 * len(self.rows) + at) for at, name in enumerate(crowd)]
        self.rows[source] = rows, set()
        return self._add(dataset, source, population)

    @rule(target=versions, dataset=datasets, pick=st.integers(0, 99), population=populations)
    def add_again(self, dataset: str, pick: int, population: str):
        """The same bytes, perhaps as another dataset, perhaps as other people's."""
        if not self.rows:
            return multiple()
        return self._add(dataset, sorted(self.rows)[pick % len(self.rows)], population)

    @rule(target=versions, spec=versions, name=datasets)
    def copy(self, spec: str, name: str):
        return self._derived(self.both("copy", lambda world: world.copy(spec, name)), [spec])

    @rule(target=versions, spec=consumes(versions), name=datasets)
    def rename(self, spec: str, name: str):
        return self._derived(self.both("rename", lambda world: world.rename(spec, name)), [spec])

    @rule(target=versions, spec=versions, name=datasets, names=crowds)
    def view(self, spec: str, name: str, names: list[str]):
        people = frozenset((population, one) for population in POPULATIONS for one in (VICTIM, *names))
        return self._derived(
            self.both("view", lambda world: world.view(spec, name, sorted(people))), [spec], people
        )

    @rule(target=versions, specs=st.lists(versions, min_size=2, max_size=3), name=datasets)
    def merge(self, specs: list[str], name: str):
        return self._derived(self.both("merge", lambda world: world.merge(specs, name)), specs)

    @rule(target=versions, spec=versions, name=others)
    def without(self, spec: str, name: str):
        leaving = [(population, name) for population in POPULATIONS]
        stay = frozenset(self.reference.versions[spec].people) - set(leaving)
        return self._derived(self.both("without", lambda world: world.without(spec, leaving)), [spec], stay)

    def _derived(self, outcome: tuple, parents: list[str], people: frozenset[Person] | None = None):
        ok, spec = outcome
        if not ok:
            return multiple()
        self.reference.derive(spec, parents, people)
        return spec

    @rule(spec=versions)
    def retire(self, spec: str) -> None:
        self.both("retire", lambda world: world.retire(spec))

    # People

    @rule(population=populations, name=st.sampled_from((VICTIM, *OTHERS)), give=st.booleans())
    def consent(self, population: str, name: str, give: bool) -> None:
        if self.both("consent", lambda world: world.consent(population, name, give=give))[0]:
            (self.reference.agreed.add if give else self.reference.agreed.discard)((population, name))

    @rule(population=populations, name=others)
    def erase(self, population: str, name: str) -> None:
        """Never the victim: to be erased is not the same operation where one is not there."""
        if self.sealed and self.both("erase", lambda world: world.erase(population, name))[0]:
            self.erased.add((population, name))

    # Releases

    @rule(spec=versions, event=events, staff=shares, end=ends)
    def release(self, spec: str, event: Event, staff: str, end: str) -> None:
        self._release(spec, event, staff, end)

    @rule(spec=versions, event=events, staff=shares)
    def release_for_research(self, spec: str, event: Event, staff: str) -> None:
        """For a purpose that people must agree to: those who do not are left out first."""
        self._release(spec, event, staff, "settle", "research")

    @rule(spec=versions, times=st.integers(2, 6), took=st.integers(1, 6), staff=shares)
    def stop_early(self, spec: str, times: int, took: int, staff: str) -> None:
        """A release that used less than it reserved settles down."""
        step = PureDP("1/20")
        self._release(spec, Repeated(step, times), staff, Repeated(step, min(took, times)))

    def _release(
        self, spec: str, event: Event, staff: str, end: str | Event, purpose: str = "planning"
    ) -> None:
        shares = {"patients": "all", "staff": staff}
        if not self.both("release", lambda world: world.release(spec, event, purpose, shares, end))[0]:
            return
        paid = [share for kind, share, _, _ in self.new if kind == "reserve"]
        took = None if end == "void" else end if isinstance(end, Event) else event
        self.reference.charged(spec, {share: Charge(share, took) for share in paid}, purpose)
        self.reference.check_people()

    # The rest of the world

    @rule(days=st.sampled_from([1, 40, 100, -40, -1]))
    def time_passes(self, days: int) -> None:
        """Forward over the end of a period, or back by somebody's hand."""
        self.clock.current += timedelta(days=days)

    @rule()
    def reopen(self) -> None:
        self.both("reopen", lambda world: world.reopen())

    @rule(population=populations, amount=st.sampled_from(["3", "50"]), honest=st.booleans())
    def raise_budget(self, population: str, amount: str, honest: bool) -> None:
        reason = "decision 12" if honest else ""
        ok, _ = self.both("raise", lambda world: world.raise_budget(population, amount, reason))
        if ok:
            now = Fraction(amount)
            self.reference.promised[population] = max(self.reference.promised[population], now)

    @rule()
    def back_up(self) -> None:
        self.both("back up", lambda world: world.keep())
        self.backup, self.kept = True, [world.rows_seen for world in self.worlds]

    @rule(part=st.sampled_from(["ledger.db", "catalogue"]))
    def put_back(self, part: str) -> None:
        """An older copy of a part: it is noticed, or there is nothing to notice."""
        if not self.backup:
            return
        _, noticed = self.both("put back", lambda world: world.mask(world.put_back(part)))
        if part == "ledger.db":
            older = self.kept[0] < self.worlds[0].rows_seen
            assert noticed.startswith("LedgerRolledBack") == older, f"an older copy: {noticed}"

    @invariant()
    def the_book_has_charged_what_took_place(self) -> None:
        for world in getattr(self, "worlds", []):
            ledger = world.project.ledger
            for balance in ledger.balances():
                account = f"{balance.population}/{balance.share}"
                totals = ledger.totals(balance.population, balance.share)
                orders = ledger.share(balance.population, balance.share).orders
                spent = dict(zip(orders, totals.renyi, strict=True))
                self.reference.check_account(account, totals.epsilon, spent)


def run(world: type, memory: Path, clock: type, examples: int, **more) -> Counter[str]:
    """Run sequences and return how often what took place, and how it ended."""
    Sequences.counts = Counter()
    chosen = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
    run_state_machine_as_test(lambda: Sequences(world, memory, clock), settings=chosen)
    return Sequences.counts


def check_reached(counts: Counter[str], sequences: int) -> None:
    """What never takes place proves nothing: every operation and every refusal must have been met."""
    print(f"{counts['sequences']} sequences, {counts['steps']} steps:", dict(sorted(counts.items())))
    assert counts["sequences"] >= sequences
    reached = ("add", "copy", "view", "rename", "merge", "without", "retire", "consent", "erase", "raise")
    reached += ("release", "reopen", "put back", "release: BudgetSpent", "add: PolicyRefused")
    reached += ("release: PolicyRefused", "raise: PolicyRefused")
    assert not [what for what in reached if not counts[what]]


def test_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 200), 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_sequences(world: type, memory: Path, clock: type) -> None:
    check_reached(run(world, memory, clock, 2000), 2000)


# Wrong twins: each must be found out


def forgets_lineage(world: type, patch: pytest.MonkeyPatch) -> type:
    """A gate that does not look whose a version is, and a capability that charges one population of it."""
    patch.setattr(recorded, "check", lambda *_: None)

    class Twin(world):
        def budgets(self, version):
            return super().budgets(version)[-1:]

    return Twin


def tells(world: type, patch: pytest.MonkeyPatch) -> type:
    """A refusal that mentions how many rows there are."""

    class Twin(world):
        def permit(self, spec, *rest):
            try:
                return super().permit(spec, *rest)
            except BudgetSpent as error:
                rows = self.catalogue.find(spec).facts.rows
                raise BudgetSpent(f"{error} The version has {rows} rows.") from error

    return Twin


def takes_back(world: type, patch: pytest.MonkeyPatch) -> type:
    """A gate that takes a charge back though noise was drawn."""

    class Twin(world):
        def stop(self, permit):
            permit._drew = False
            super().stop(permit)

    return Twin


def remembers_nothing(world: type, patch: pytest.MonkeyPatch) -> type:
    """A ledger without an anchor, and receipts that vouch for nothing."""
    patch.setattr(FileAnchor, "heads", lambda _: [])
    patch.setattr(FileAnchor, "newest", lambda _: None)
    patch.setattr("sfumato.core.gate.newest_heads", lambda *_: ())
    return world


def forgives(world: type, patch: pytest.MonkeyPatch) -> type:
    """A share without end."""
    patch.setattr(Share, "fits", lambda *_: True)
    return world


def moves_people(world: type, patch: pytest.MonkeyPatch) -> type:
    """An enrolment that puts who comes again into the newest month."""
    patch.setattr("sfumato.core.charging.chosen", newest_block)
    patch.setattr(recorded, "chosen", newest_block)
    patch.setattr(recorded, "check", lambda *_: None)
    return world


def newest_block(population: str, body, blocks, at: str) -> tuple[str, ...]:
    return chosen(population, body, blocks, at)[-1:]


def lets_no_last_one_leave(world: type, patch: pytest.MonkeyPatch) -> type:
    """A version that nobody may be left out of, if nobody were left."""

    class Twin(world):
        def without(self, spec, people):
            version = self.catalogue.find(spec)
            if {item.subject for item in version.items} <= self.subjects(people):
                raise InvalidRequest("nobody would be left")
            return super().without(spec, people)

    return Twin


TWINS = (
    (forgets_lineage, "somebody paid nothing"),
    (tells, "the neighbours"),
    (takes_back, "patients|staff"),
    (remembers_nothing, "older copy"),
    (forgives, "lost"),
    (moves_people, "somebody paid nothing"),
    (lets_no_last_one_leave, "the neighbours"),
)


@pytest.mark.parametrize(("twin", "why"), TWINS, ids=lambda item: getattr(item, "__name__", None))
def test_a_wrong_twin_is_found_out(
    twin: Callable,
    why: str,
    world: type,
    memory: Path,
    clock: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError, match=why):
        run(
            twin(world, monkeypatch),
            memory,
            clock,
            300,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # the smallest sequence is nobody's concern here
            report_multiple_bugs=False,
        )
