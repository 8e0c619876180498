"""Projects with one fault each, which sequences must find."""

from __future__ import annotations

import pytest

from sfumato.core import versions as recorded
from sfumato.core.accounting import Share
from sfumato.core.anchor import FileAnchor
from sfumato.core.blocks import chosen, rule_of
from sfumato.core.errors import BudgetSpent, InvalidRequest
from sfumato.data import blocks, check, keyfiles


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
    patch.setattr("sfumato.core.project._remember", lambda *_: None)
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


def views_no_empty_block(world: type, patch: pytest.MonkeyPatch) -> type:
    """A view of blocks that says where nobody is in them."""

    class Twin(world):
        def blocks(self, spec, name, blocks):
            made = super().blocks(spec, name, blocks)
            if not self.people(made):
                raise InvalidRequest("nobody is in these blocks")
            return made

    return Twin


def enrols_again(world: type, patch: pytest.MonkeyPatch) -> type:
    """An enrolment that goes by the newest version that holds somebody."""

    def newest(catalogue, ledger, population):
        rule, found = rule_of(ledger.book.find("population", population).body), {}
        for row in recorded.versions(ledger):
            if population in row.body["populations"]:
                for item in catalogue.by_hash(row.body["hash"]).items:
                    block = rule.at(row.body["at"]) if rule.period else rule.of(item.subject)
                    found[item.subject] = block
        return found

    patch.setattr(blocks, "blocks_of", newest)
    return world


def sells_twice(world: type, patch: pytest.MonkeyPatch) -> type:
    """A door that does not know bytes again."""
    patch.setattr("sfumato.data.add._refuse_a_second_budget", lambda *_: None)
    return world


def believes_old_files(world: type, patch: pytest.MonkeyPatch) -> type:
    """A look at the catalogue that does not ask the ledger."""
    patch.setattr(check, "compare", lambda *_: [])
    return world


def brings_back(world: type, patch: pytest.MonkeyPatch) -> type:
    """A vault whose tombstones lie beside the keys alone."""
    patch.setattr(keyfiles.KeyFolder, "_repair_tombstones", lambda _: None)
    return world


def lets_one_owner_raise(world: type, patch: pytest.MonkeyPatch) -> type:
    """A raise that does not look who approves."""
    patch.setattr("sfumato.core.raising.fault", lambda *_: "")
    return world


TWINS = (
    (forgets_lineage, "somebody paid nothing"),
    (tells, "the neighbours"),
    (takes_back, "patients|staff"),
    (remembers_nothing, "older copy"),
    (forgives, "lost"),
    (moves_people, "somebody paid nothing"),
    (lets_no_last_one_leave, "the neighbours"),
    (views_no_empty_block, "the neighbours"),
    (enrols_again, "should not be|somebody paid nothing"),
    (sells_twice, "other people's"),
    (believes_old_files, "older copy"),
    (brings_back, "are back"),
    (lets_one_owner_raise, "one owner"),
)
