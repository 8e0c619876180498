"""The same sequence of operations in two neighbouring projects."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
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

from sequences.reference import Charge, Person, Reference
from sequences.world import DATASETS, HASHED, POPULATIONS
from sfumato.core.errors import SfumatoError
from sfumato.core.event import Event, Gaussian, Laplace, PureDP, Repeated

VICTIM = "ada"
OTHERS = ("bob", "cyd", "dan", "eve")
PROMISED = {"patients": 2, "staff": 1, "visitors": 1}
START = datetime(2026, 1, 15, 12, tzinfo=UTC)

events = st.one_of(
    st.sampled_from(["1/10", "1/4", "1/3", "1/2", "1", "3"]).map(PureDP),
    st.sampled_from([1, 3, 8, 20]).map(Laplace),
    st.sampled_from([4, 10, 30]).map(Gaussian),
    st.builds(Repeated, st.sampled_from([Gaussian(20), Laplace(30), PureDP("1/20")]), st.integers(1, 6)),
)
ends = st.sampled_from(["settle", "settle", "settle", "void", "late", "kill"])
shares = st.sampled_from(["care", "runs"])
owners = st.sampled_from([[], ["one"], ["one", "one"], ["one", "two"]])
datasets, populations = st.sampled_from(DATASETS), st.sampled_from(POPULATIONS)
others = st.sampled_from(OTHERS)
crowds = st.sets(others, min_size=1, max_size=3).map(sorted)


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
        self.reference = Reference(promised={name: Fraction(amount) for name, amount in PROMISED.items()})
        self.budgets = dict(self.reference.promised)
        self.rows: dict[str, tuple[list[tuple[str, int]], set[Person]]] = {}
        self.backup = False
        self.entered: dict[str, list[frozenset[str]]] = {}
        self.since: set[str] = set()

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
        visitors = self.add_source("d3", [VICTIM, "dan", "eve"], "visitors")
        return multiple(patients, visitors, self.add_source("d2", [VICTIM, "dan"], "staff"))

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
        self.since |= {row[0] for row in self.new}
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
        now = self.worlds[0]
        for person in people:
            if person[0] == "patients":  # the month in which the ledger first knew of them, for ever
                self.reference.homes.setdefault(person, now.project.ledger.time()[:7])
            if person[0] == "visitors":
                self.reference.homes.setdefault(person, HASHED.of(*now.subjects([person])))
        if new:
            self.reference.enter(spec, frozenset(people), frozenset({population}))
            self._look(spec)
        mine, known = self.reference.versions[spec].populations, self.entered.setdefault(source, [])
        assert all(one <= mine for one in known), "the same bytes are other people's now"
        known.append(mine)
        return spec

    def _look(self, spec: str) -> None:
        """Nobody is in a version who should not be."""
        world = self.worlds[0]
        expected = world.subjects(self.reference.versions[spec].people)
        assert world.people(spec) <= expected, "somebody is in it who should not be"

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

    @rule(target=versions, spec=versions, name=datasets, which=st.sampled_from(["first", "last", "half"]))
    def blocks(self, spec: str, name: str, which: str):
        """A view of some of the blocks that a version touches."""
        touched = self.worlds[0].touched(spec)
        population = min(touched)
        theirs = touched[population]
        some = {"first": theirs[:1], "last": theirs[-1:], "half": theirs[len(theirs) // 2 :]}[which]
        outcome = self.both("blocks", lambda world: world.blocks(spec, name, some))
        inside = frozenset(
            person
            for person in self.reference.versions[spec].people
            if person[0] == population and self.reference.homes.get(person) in some
        )
        alone = name not in {known.partition("@")[0] for known in self.reference.versions}
        made = self._derived(outcome, [spec], inside)
        if outcome[0] and alone:
            held = self.reference.versions[outcome[1]]
            held.only = frozenset(f"{population}#{block}" for block in some)
        return made

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
        self._look(spec)
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
            Sequences.counts["erased"] += 1

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
        shares = {"patients": "all", "staff": staff, "visitors": "all"}
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

    @rule(population=populations, amount=st.sampled_from(["3", "50"]), owners=owners)
    def raise_budget(self, population: str, amount: str, owners: list[str]) -> None:
        what = f"raise by {len(set(owners))} of {len(owners)}"
        if self.both(what, lambda world: world.raise_budget(population, amount, owners))[0]:
            now, before = Fraction(amount), self.budgets[population]
            agreed = bool(owners) and len(set(owners)) == len(owners)
            assert agreed or now <= before, "raised by nobody, or by one owner"
            self.budgets[population] = now
            self.reference.promised[population] = max(now, self.reference.promised[population])

    @rule()
    def back_up(self) -> None:
        self.both("back up", lambda world: world.keep())
        self.backup, self.since = True, set()

    @rule(part=st.sampled_from(["ledger.db", "catalogue", "keys"]))
    def put_back(self, part: str) -> None:
        """An older copy of a part: it is noticed, or there is nothing to notice."""
        if not self.backup or (part == "keys" and not self.sealed):
            return
        since = set(self.since)
        _, noticed = self.both(f"put back {part}", lambda world: world.mask(world.put_back(part)))
        if part == "ledger.db":
            assert noticed.startswith("LedgerRolledBack") == bool(since), f"an older copy: {noticed}"
        if part == "catalogue":
            changed = bool(since & {"version", "retired"})
            assert noticed.startswith("IntegrityError") == changed, f"an older copy: {noticed}"
        if part == "keys":  # refused, or whoever was erased is so again
            assert "are back" not in noticed, f"an older copy: {noticed}"

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


def run(world: type, memory: Path, clock: type, examples: int, steps: int = 20, **more) -> Counter[str]:
    """Run sequences and return how often what took place, and how it ended."""
    Sequences.counts = Counter()
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
    run_state_machine_as_test(lambda: Sequences(world, memory, clock), settings=chosen)
    return Sequences.counts
