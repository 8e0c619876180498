"""The consent register: who agreed to which purpose, since when, and who took it back.

    decision = register.decide(subjects, "research")   # who may be used, who may not
    rows = [row for row in rows if row.subject in decision.allowed]
    plan = Plan(..., purpose="research", consent=decision.evidence)

The gate asks for the evidence wherever a purpose rests on consent, and refuses a plan that was made before
the newest withdrawal. The register is append-only and chained like the ledger, has its own anchor, and holds
pseudonyms, never names. Without a row nobody has agreed; a register that was lost or replaced is refused.

Days, not hours, decide: of two entries of one day the later one in the register counts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sfumato.core.anchor import FileAnchor, Head
from sfumato.core.book import ROOT_HASH, Entry, SQLiteBook
from sfumato.core.consent_csv import GIVEN, WITHDRAWN, Item, fault, read_csv
from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import InvalidRequest, LedgerRolledBack, LedgerTampered, PolicyRefused
from sfumato.core.identity import LOCAL_OWNER, Actor
from sfumato.core.ledger import is_id

FORMAT = "sfumato-consent/1"


@dataclass(frozen=True, slots=True)
class Evidence:
    """That consent was asked of a register, and how far the register went then."""

    register: str
    purpose: str
    seq: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Who may be used for a purpose, and who may not; both in the order asked.

    Args:
        allowed, withdrawn: subjects as they were given; who never agreed is among the withdrawn.
        evidence: goes into the plan.
    """

    allowed: tuple[str, ...]
    withdrawn: tuple[str, ...]
    evidence: Evidence

    def facts(self, *, proven: bool = False) -> dict[str, Any]:
        """Return what the receipt says: counts only, and not even these under a proven guarantee.

        The exact number of people is itself an answer about the data, which no noise covers.
        """
        fact: dict[str, Any] = {"purpose": self.evidence.purpose, "checked": True}
        if not proven:
            fact |= {"used": len(self.allowed), "left_out": len(self.withdrawn)}
        return {"consent": fact}


class Register:
    """Consent by subject and purpose, in one append-only file.

    >>> register = Register(":memory:", pseudonym=lambda name: f"{len(name):032x}")
    >>> register.give("Ann", "research", source="form 7")
    >>> register.allowed(["Ann", "Bertram"], "research")
    (('Ann',), ('Bertram',))

    Args:
        path: the file; ":memory:" for one that lives as long as the object.
        pseudonym: subject -> keyed hash; None: subjects are keyed hashes already (32 or 64 hex digits).
        anchor: register id -> where its newest head is remembered.
        actor: who writes; needs the right "consent".

    Raises:
        LedgerTampered: not a register, or edited. LedgerRolledBack: older than its anchor.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        pseudonym: Callable[[str], str] | None = None,
        anchor: Callable[[str], FileAnchor] | None = None,
        actor: Actor = LOCAL_OWNER,
    ) -> None:
        self.book = SQLiteBook(str(path), create=True)
        self.actor = actor
        self._pseudonym = pseudonym
        self._forget()
        first = self.book.get(1)
        if first is None:
            with self.book.writing():
                first = self.book.get(1) or self.book.append(
                    "genesis", "", None, {"at": _now(), "format": FORMAT, "register": SYSTEM.bytes(16).hex()}
                )
        self.id = str(first.body.get("register", ""))
        if first.kind != "genesis" or first.body.get("format") != FORMAT or not is_id(self.id):
            raise LedgerTampered(f"the first row of {path} does not open a consent register")
        self._anchor = anchor(self.id) if anchor is not None else None
        self._read()
        if self._anchor is not None and self._anchor.newest() != self._head:
            self._anchor.advance(self._head)  # what another user wrote is remembered from now on

    def named(self, pseudonym: Callable[[str], str]) -> Register:
        """Take subjects by name from now on, and return the register.

        Args:
            pseudonym: subject -> keyed hash.
        """
        self._pseudonym = pseudonym
        return self

    # Reading

    @property
    def _head(self) -> Head:
        return Head(self._seq, self._hash)

    def given(self, subject: str, purpose: str, at: date | None = None) -> bool:
        """Whether a subject's consent to a purpose stands on a day (default: today)."""
        self._read()
        if at is None:
            return self._state.get(purpose, {}).get(self._name(subject), (date.min, ""))[1] == GIVEN
        share, newest = f"{purpose}/{self._name(subject)}", (date.min, "")
        for row in self.book.all(after=1):
            if row.share == share and newest[0] <= (day := _date(row)) <= at:
                newest = (day, row.kind)
        return newest[1] == GIVEN

    def allowed(self, subjects: Iterable[str], purpose: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the subjects who may be used for a purpose, and those who may not."""
        decision = self.decide(subjects, purpose)
        return decision.allowed, decision.withdrawn

    def decide(self, subjects: Iterable[str], purpose: str, *, hashed: bool = False) -> Decision:
        """Return who may be used for a purpose, with the evidence that a plan needs.

        Args:
            hashed: the subjects are pseudonyms already, as datasets keep them.
        """
        self._read()
        state = self._state.get(purpose, {})
        asked = tuple(subjects)
        names = asked if hashed else tuple(self._name(subject) for subject in asked)
        yes = [state.get(name, (date.min, ""))[1] == GIVEN for name in names]
        return Decision(
            tuple(subject for subject, ok in zip(asked, yes, strict=True) if ok),
            tuple(subject for subject, ok in zip(asked, yes, strict=True) if not ok),
            Evidence(self.id, purpose, self._seq),
        )

    def require(self, subjects: Iterable[str], purpose: str) -> Evidence:
        """Return the evidence for a release that cannot leave anyone out, such as a whole export.

        Raises:
            PolicyRefused: not everyone's consent stands; it does not say whose, or how many.
        """
        decision = self.decide(subjects, purpose)
        if decision.withdrawn:
            raise PolicyRefused(
                f"not everyone in this data agrees to its use for {purpose!r}. Leave out those who do not, "
                f"which makes a new version, or ask them. The rule: purposes.{purpose}.lawful_basis in "
                "sfumato.toml.",
                rule=f"purposes.{purpose}.lawful_basis",
            )
        return decision.evidence

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many subjects have given, and how many withdrawn, by purpose."""
        self._read()
        return {
            purpose: {kind: sum(now == kind for _, now in people.values()) for kind in (GIVEN, WITHDRAWN)}
            for purpose, people in sorted(self._state.items())
        }

    def history(self, subject: str) -> list[dict[str, str]]:
        """Return everything the register knows of one subject, oldest first: what that person may ask for."""
        self._read()
        name = self._name(subject)
        return [
            {
                "purpose": row.share.rpartition("/")[0],
                "kind": row.kind,
                "date": row.body["date"],
                "source": row.body["source"],
            }
            for row in self.book.all()
            if row.kind in (GIVEN, WITHDRAWN) and row.share.rpartition("/")[2] == name
        ]

    def check(self, purpose: str, evidence: Evidence | None) -> None:
        """Refuse a plan for a purpose that rests on consent: nobody was asked, or someone withdrew since.

        Raises:
            PolicyRefused: says which, and no more.
        """
        self._read()
        rule = f"purposes.{purpose}.lawful_basis"
        if evidence is None or (evidence.register, evidence.purpose) != (self.id, purpose):
            raise PolicyRefused(
                f"the purpose {purpose!r} rests on consent, and this plan was made without asking the "
                "consent register: plan with `Project.consent.decide(subjects, purpose)` and pass its "
                "evidence. For files: bring them in with `sfumato data add NAME PATH --unit ...`, let out "
                f"those who agree with `sfumato data export NAME -o FOLDER --purpose {purpose}`, and go on "
                f"with FOLDER under a purpose that rests on another lawful basis. Rule: {rule}.",
                rule=rule,
            )
        if type(evidence.seq) is not int or not 1 <= evidence.seq <= self._seq:
            raise PolicyRefused(
                "the evidence of this plan is not from this register: it names a row that the register does "
                "not have. Plan again with `Project.consent.decide(subjects, purpose)`. "
                f"Rule: {rule}.",
                rule=rule,
            )
        if self._withdrawals.get(purpose, 0) > evidence.seq:
            raise PolicyRefused(
                f"consent to {purpose!r} was withdrawn after this plan was made: plan again. "
                f"The rule: {rule}.",
                rule=rule,
            )

    # Writing

    def give(self, subject: str, purpose: str, *, on: date | None = None, source: str = "") -> None:
        """Record that a subject agreed to a purpose; changes nothing where that already stands.

        Raises:
            PolicyRefused: the acting role may not record consent.
            InvalidRequest: a day in the future.
        """
        self._record([(GIVEN, subject, purpose, on, source)], again=True)

    def withdraw(self, subject: str, purpose: str, *, on: date | None = None, source: str = "") -> None:
        """Record that a subject took consent back; from the next plan on, their rows stay out.

        Raises:
            PolicyRefused: the acting role may not record consent.
            InvalidRequest: a day in the future.
        """
        self._record([(WITHDRAWN, subject, purpose, on, source)], again=True)

    def load(self, path: Path, *, source: str = "", purposes: Iterable[str] | None = None) -> int:
        """Import a CSV file with the columns subject, purpose, given, withdrawn; return how many were new.

        All of it is recorded, or nothing. What was imported before is not recorded again, so an old file does
        not undo a newer withdrawal; of one day's consent and withdrawal the withdrawal counts.

        Args:
            purposes: those that are declared; None: any.

        Raises:
            InvalidRequest: names the line that does not read.
        """
        known = set(purposes) if purposes is not None else None
        return self._record(read_csv(path, source or "import", known), again=False)

    # Inside

    def _record(self, items: Iterable[Item], *, again: bool) -> int:
        self.actor.require("consent")
        rows = [
            (kind, self._share(subject, purpose), on, source) for kind, subject, purpose, on, source in items
        ]
        for purpose in {share.rpartition("/")[0] for _, share, _, _ in rows}:
            self.actor.about(purpose)
        try:
            with self.book.writing():
                new = self._append(rows, again=again)
        except BaseException:
            self._forget()  # what was read inside was rolled back
            raise
        if new and self._anchor is not None:
            self._anchor.advance(new[-1].head)
        return len(new)

    def _append(self, rows: Iterable[tuple[str, str, date | None, str]], *, again: bool) -> list[Entry]:
        self._read()
        at = max(_now(), self._at())
        self.actor.in_time(datetime.fromisoformat(at))
        today = datetime.fromisoformat(at).date()
        new = []
        for kind, share, on, source in rows:
            day = on or today
            if day > today:
                raise InvalidRequest(f"{day.isoformat()} lies in the future: record it when it has come")
            if len(source) > 200 or not source.isprintable():
                raise InvalidRequest("a source is one line of at most 200 printable characters")
            purpose, _, name = share.rpartition("/")
            newest, state = self._state.get(purpose, {}).get(name, (date.min, ""))
            if (again and state == kind) or (not again and (kind, share, day.isoformat()) in self._seen):
                continue
            if not again and kind == GIVEN and (newest, state) == (day, WITHDRAWN):
                continue  # a file does not say which came first: the withdrawal counts
            if again and day < newest:
                raise InvalidRequest(
                    f"{day.isoformat()} lies before what was recorded last of this subject ({state}), "
                    "which would go on to count: give a later day, or none for today"
                )
            body = {"at": at, "date": day.isoformat(), "source": source, "by": self.actor.label()}
            new.append(self.book.append(kind, share, None, body))
            self._fold(new[-1])
        return new

    def _share(self, subject: str, purpose: str) -> str:
        if wrong := fault(subject):
            raise InvalidRequest(f"a subject that {wrong} is not recorded: give the id as the data has it")
        if not purpose or "/" in purpose:
            raise InvalidRequest("consent needs a purpose, which has no '/'")
        return f"{purpose}/{self._name(subject)}"

    def _name(self, subject: str) -> str:
        subject = unicodedata.normalize("NFC", subject)  # typed on two systems, it is one person
        name = self._pseudonym(subject) if self._pseudonym is not None else subject
        if len(name) not in (32, 64) or not set(name) <= set("0123456789abcdef"):
            raise InvalidRequest(
                "a subject must be a keyed hash of 32 or 64 hex digits, so that no name enters the register; "
                "make one with `sfumato.data.people.people_of(project).subject(id, population)`"
            )
        return name

    def _at(self) -> str:
        last = self.book.last()
        return str(last.body.get("at", "")) if last else ""

    def _forget(self) -> None:
        self._seq, self._hash = 0, ROOT_HASH
        self._state: dict[str, dict[str, tuple[date, str]]] = {}
        self._seen: set[tuple[str, str, str]] = set()
        self._withdrawals: dict[str, int] = {}

    def _read(self) -> None:
        """Read the rows that are new, and refuse a register that was edited or is older than its anchor."""
        for row in self.book.all(after=self._seq):
            self._fold(row)
        newest = self._anchor.newest() if self._anchor is not None else None
        if newest is None:
            return
        held = self.book.get(newest.seq)
        if held is None:
            raise LedgerRolledBack(
                f"the consent register {self.book.path} is older than what was already seen: it ends at row "
                f"{self._seq}, and row {newest.seq} is known. Withdrawals may be missing: restore the newest."
            )
        if held.hash != newest.hash:
            raise LedgerTampered(
                f"row {newest.seq} of the consent register {self.book.path} is not the row that was seen "
                "before: restore the copy that was"
            )

    def _fold(self, row: Entry) -> None:
        if row.seq != self._seq + 1 or row.prev != self._hash or row.computed_hash() != row.hash:
            raise LedgerTampered(
                f"row {row.seq} of the consent register {self.book.path} does not verify: it was edited, or "
                "rows are missing. Restore a copy that verifies."
            )
        self._seq, self._hash = row.seq, row.hash
        if row.kind == "genesis":
            return
        purpose, _, name = row.share.rpartition("/")
        day = _date(row)
        self._seen.add((row.kind, row.share, row.body["date"]))
        people = self._state.setdefault(purpose, {})
        if day >= people.get(name, (date.min, ""))[0]:
            people[name] = (day, row.kind)
        if row.kind == WITHDRAWN:
            self._withdrawals[purpose] = row.seq

    def close(self) -> None:
        """Close the file."""
        self.book.close()


def _date(row: Entry) -> date:
    try:
        return date.fromisoformat(row.body["date"])
    except (KeyError, ValueError, TypeError) as error:
        raise LedgerTampered(f"row {row.seq} of the consent register has no date") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
