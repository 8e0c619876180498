"""A governed project of real parts, with what people do to it; and a clock that tests may set."""

from __future__ import annotations

import datetime as real
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from sfumato.core.blocks import MARK, Blocks
from sfumato.core.errors import SfumatoError
from sfumato.core.event import Event
from sfumato.core.gate import Gate, Permit
from sfumato.core.identity import KEY_NAME, Actor
from sfumato.core.project import Project
from sfumato.core.raising import approve, propose, raise_alone
from sfumato.core.verify import verify
from sfumato.core.versions import touched
from sfumato.data import check
from sfumato.data.add import add
from sfumato.data.blocks import restrict
from sfumato.data.contents import table, without
from sfumato.data.door import Request
from sfumato.data.erasure import erase
from sfumato.data.keyfiles import owner_of
from sfumato.data.lineage import copy, merge, populations_of, view
from sfumato.data.opening import open_data
from sfumato.data.recording import recorded
from sfumato.data.use import use
from sfumato.data.vault import Vault
from sfumato.data.version import Version
from sfumato.data.wrapping import Access

POLICY = """
[project]
name = "sequences"
[purposes.planning]
lawful_basis = "public task"
actions = ["query", "export"]
[purposes.research]
lawful_basis = "consent"
actions = ["query"]
[populations.patients]
unit = "patient"
epsilon = {patients}
delta = 1e-6
blocks = "enrolment month"
[populations.visitors]
unit = "patient"
epsilon = {visitors}
blocks = "hash 3"
[populations.staff]
unit = "patient"
epsilon = {staff}
[populations.staff.shares.care]
epsilon = 0.5
[populations.staff.shares.runs]
kind = "sum"
epsilon = 0.5
"""
DATASET = """
[datasets.{name}]
purposes = ["planning", "research"]
keep = ["age"]
unit = "who"
partition = "subject"
"""
DATASETS = ("d1", "d2", "d3", "d4")
POPULATIONS = ("patients", "staff", "visitors")
HASHED = Blocks.parse("hash 3")
#: By this key the one who may be absent is alone in a block by hash, and in the first one.
KEY = bytes([31]) * 32
HEX = re.compile(r"\b[0-9a-f]{16,64}\b")


class Clock(real.datetime):
    """The time that every part of Sfumato sees; `current` is set by tests."""

    current = real.datetime(2026, 1, 15, 12, tzinfo=real.UTC)

    @classmethod
    def now(cls, tz: real.tzinfo | None = None) -> real.datetime:
        return cls.current.astimezone(tz)


class Stop(Exception):
    """What ends a release half-way."""


class World:
    """One of two neighbours: the same operations, and people of whom one may be absent or someone else.

    Args:
        folder: an empty folder.
        person: whom an id stands for here; None: nobody.
        sealed: whether the data lies in a vault.
    """

    def __init__(self, folder: Path, person: Callable[[str], str | None], *, sealed: bool) -> None:
        self.folder, self.person, self.sealed = folder, person, sealed
        self.root = folder / "project"
        self.amounts = {"patients": "2", "staff": "1", "visitors": "1"}
        self._seen: dict[str, str] = {}
        self.erased: set[str] = set()
        self.rows_seen = 0
        Project.init(self.root, name="sequences").close()
        (self.root / ".sfumato" / "catalogue").mkdir()  # so that a backup of it can be put back
        # One key for both, so that people are in the same block by hash; and for all, so that a run repeats.
        (self.root / ".sfumato" / KEY_NAME).write_bytes(KEY)
        (self.root / ".sfumato" / KEY_NAME).chmod(0o600)
        self._write_policy()
        if sealed:
            Vault.init(self.root, "file", Access(options={"path": str(folder / "master.key")}))
        self.open()

    # Opening

    def _write_policy(self) -> None:
        datasets = "".join(DATASET.format(name=name) for name in DATASETS)
        (self.root / "sfumato.toml").write_text(POLICY.format(**self.amounts) + datasets)

    def open(self) -> None:
        """Open everything anew, as the next process would."""
        self.project = Project(self.root)
        self.gate: Gate = self.project.gate()
        self.catalogue, self.store = open_data(self.project)

    def reopen(self) -> None:
        self.project.close()
        self.open()

    def close(self) -> None:
        self.project.close()

    # What people do

    def add(
        self, dataset: str, source: str, rows: Sequence[tuple[str, int]], population: str
    ) -> tuple[str, bool]:
        """Add a source, which is written when it is first named; return it, and whether it is new."""
        path = self.folder / f"{source}.csv"
        if not path.exists():
            lines = [f"{who},{age}\n" for one, age in rows if (who := self.person(one)) is not None]
            path.write_text("who,age\n" + "".join(lines))
        request = Request(dataset=dataset, path=path, population=population)
        added = add(self.catalogue, self.store, self.project.policy, request)
        return added.version.spec, added.new

    def copy(self, spec: str, name: str) -> str:
        return copy(self.catalogue, self.catalogue.find(spec), name).spec

    def view(self, spec: str, name: str, people: Sequence[tuple[str, str]]) -> str:
        version = self.catalogue.find(spec)
        wanted = self.subjects(people)
        paths = [item.path for item in version.items if item.subject in wanted]
        return view(self.catalogue, version, name, paths).spec

    def blocks(self, spec: str, name: str, blocks: Collection[str]) -> str:
        """Make a view that holds the people of some blocks alone."""
        version = self.catalogue.find(spec)
        return restrict(self.catalogue, self.project.ledger, version, blocks, name).spec

    def touched(self, spec: str) -> dict[str, tuple[str, ...]]:
        """Return the populations of a version, and which blocks of each the ledger says that it touches."""
        return touched(self.project.ledger, [self.catalogue.find(spec).hash])

    def people(self, spec: str) -> set[str]:
        """Return the pseudonyms of whom a version is about."""
        return {item.subject for item in self.catalogue.find(spec).items}

    def merge(self, specs: Sequence[str], name: str) -> str:
        return merge(self.catalogue, [self.catalogue.find(spec) for spec in specs], name).spec

    def without(self, spec: str, people: Sequence[tuple[str, str]]) -> str:
        version = self.catalogue.find(spec)
        return without(self.catalogue, self.store, version, self.subjects(people)).spec

    def retire(self, spec: str) -> None:
        self.catalogue.retire(self.catalogue.find(spec), "by hand")

    def rename(self, spec: str, name: str) -> str:
        version = self.catalogue.find(spec)
        new = self.copy(spec, name)
        if self.catalogue.retired(version) is None:
            self.retire(spec)
        return new

    def consent(self, population: str, one: str, *, give: bool) -> None:
        """Record that a person agreed to research, or took that back."""
        # Neighbours differ in the data, not in what people told the register: who is in no source may agree.
        subject = self.catalogue.people.subject(self.person(one) or one, population)
        act = self.project.consent.give if give else self.project.consent.withdraw
        act(subject, "research")

    def erase(self, population: str, one: str) -> None:
        (subject,) = self.subjects([(population, one)])
        assert isinstance(self.store, Vault)
        erase(self.store, subject, self.gate)
        self.erased.add(subject)

    def subjects(self, people: Sequence[tuple[str, str]]) -> set[str]:
        """Return the pseudonyms of people of populations."""
        return {
            self.catalogue.people.subject(who, population)
            for population, one in people
            if (who := self.person(one)) is not None
        }

    # Releases

    def permit(self, spec: str, event: Event, purpose: str, shares: dict[str, str]) -> Permit:
        """Charge everybody whose budget a version is, at once."""
        used = use(self.project, spec, purpose, "query", gate=self.gate)
        table(used.store, used.version)
        (population, *others) = self.budgets(used.version)
        blocks = touched(self.project.ledger, [used.version.hash])
        plan = used.plan(
            mechanism="noise",
            guarantee="proven",
            statement="a noisy count, per patient",
            event=event,
            population=population,
            share=shares[population],
        )
        also = [
            (f"{other}{MARK}{block}" if block else other, shares[other])
            for other in others
            for block in blocks.get(other, ()) or ("",)
        ]
        return self.gate.open(replace(plan, blocks=blocks.get(population, ()), also=tuple(also)))

    def budgets(self, version: Version) -> tuple[str, ...]:
        return populations_of(self.catalogue, version)

    def release(
        self, spec: str, event: Event, purpose: str, shares: dict[str, str], end: Event | str
    ) -> None:
        """Release something; `end` is how: settle, void, late, kill, or the smaller event that took place."""
        permit = self.permit(spec, event, purpose, shares)
        if end == "void":
            permit.__exit__(Stop, Stop(), None)
            return
        permit.entropy.bytes(8)
        if end == "late":
            self.stop(permit)
        elif end != "kill":
            permit.settle(event=end if isinstance(end, Event) else None)

    def stop(self, permit: Permit) -> None:
        """End a release by an exception."""
        permit.__exit__(Stop, Stop(), None)

    # Older copies

    def keep(self) -> None:
        """Keep a copy of the whole project, as a backup does."""
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        shutil.copytree(self.root, self.folder / "backup")

    def put_back(self, name: str) -> str:
        """Put one part of the backup back, look whether it is noticed, and put the newest back again."""
        part = self.root / ".sfumato" / name
        old = self.folder / "backup" / ".sfumato" / name
        newest = self.folder / "newest"
        self.project.close()
        part.rename(newest)
        try:
            shutil.copytree(old, part) if old.is_dir() else shutil.copyfile(old, part)
            return self.probe()
        finally:
            self.project.close()
            shutil.rmtree(part) if part.is_dir() else part.unlink()
            newest.rename(part)
            self.open()

    def probe(self) -> str:
        """Return what is said when everything is opened and read."""
        try:
            self.open()
            if back := [one for one in self.erased if self._opens(one)]:
                return f"{len(back)} of the erased are back"
            self.check()
        except SfumatoError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _opens(self, subject: str) -> bool:
        """Whether anybody could still read what is about a person."""
        assert isinstance(self.store, Vault)
        files, owner = self.store.keys.files, owner_of("subject", subject)
        return files.erased(owner) is None or bool(files.numbers(files.head().generation, owner))

    def raise_budget(self, population: str, amount: str, owners: Sequence[str]) -> None:
        """Write a larger budget into the policy, and have no owner raise it, one, or two who may be one."""
        was = self.amounts
        self.amounts = was | {population: amount}
        self._write_policy()
        self.project.close()
        try:
            project = Project(self.root)
            if len(owners) == 1:
                raise_alone(project, population, reason="decision 12")
            if len(owners) == 2:
                first, second = (Actor(f"token:{one}", "owner") for one in owners)
                propose(project, population, reason="decision 12", actor=first)
                approve(project, population, actor=second)
            self.open()
        except SfumatoError:
            self.amounts = was
            self._write_policy()
            self.open()
            raise

    # Looking

    def check(self) -> None:
        """Verify the book and everything that is stored."""
        verify(self.project.ledger)
        check.verify(self.catalogue, self.store, ledger=recorded(self.project))

    def rows(self) -> list[tuple[str, str, int | None, str]]:
        """Return the ledger's rows since the last call, as the neighbour must have them too."""
        rows = list(self.project.ledger.entries(after=self.rows_seen))
        self.rows_seen += len(rows)
        return [(row.kind, row.share, row.ref, self.mask(repr(row.body))) for row in rows]

    def mask(self, text: str) -> str:
        """Replace what is random or a keyed hash by the order in which it was first seen.

        Ids of ledgers are random; versions, pseudonyms, receipts and the digests of plans that name them are
        hashes under a key of each project, or over such: who has no key learns nothing from one. That two of
        them are equal or not is still compared. The folder of the project is this test's own choice. Times
        are not masked: the clock is the same for both.
        """
        text = text.replace(str(self.folder), "FOLDER")
        return HEX.sub(lambda found: self._seen.setdefault(found[0], f"#{len(self._seen)}"), text)
