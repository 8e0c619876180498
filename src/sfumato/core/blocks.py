"""Blocks: a population in parts that share nobody, each with the whole budget of its own.

A person is in exactly one block for ever: by the period in which the ledger first knew of them ("enrolment
quarter"), or by their pseudonym ("hash 16"). In the book a block's account is called `P#BLOCK/SHARE`; its
terms are those of `P/SHARE`, their template, which is never charged itself. Why charging every block that a
release touches is enough: docs/guarantees/composition.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.losses import ADD_OR_REMOVE

MARK = "#"
PERIODS = ("month", "quarter", "year")
MOST = 256
_RULE = re.compile(r"enrolment (month|quarter|year)|hash ([1-9][0-9]{0,2})")
_NAMES = {
    "month": re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])"),
    "quarter": re.compile(r"[0-9]{4}-Q[1-4]"),
    "year": re.compile(r"[0-9]{4}"),
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a population is cut into blocks; fixed for ever once the population is in the ledger.

    >>> Blocks.parse("enrolment quarter").at("2026-11-24T16:00:00+00:00")
    '2026-Q4'
    >>> Blocks.parse("hash 16").of("00ff")
    'h015'

    Args:
        period: month, quarter or year of enrolment (UTC); empty for blocks by hash.
        count: how many blocks by hash; 0 for enrolment.
    """

    period: str = ""
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Blocks:
        """Read a rule.

        Raises:
            InvalidRequest: it is none; says what is.
        """
        match = _RULE.fullmatch(text) if isinstance(text, str) else None
        if match is None or (match[2] and not 2 <= int(match[2]) <= MOST):
            raise InvalidRequest(
                f'blocks are "enrolment month", "enrolment quarter", "enrolment year", or "hash N" with N '
                f"from 2 to {MOST}, got {text!r}"
            )
        return cls(match[1] or "", int(match[2] or 0))

    def __str__(self) -> str:
        return f"enrolment {self.period}" if self.period else f"hash {self.count}"

    def at(self, when: str) -> str:
        """Return the enrolment block of a time of the ledger (ISO, UTC)."""
        year, month = when[:4], int(when[5:7])
        if self.period == "year":
            return year
        return f"{year}-{month:02}" if self.period == "month" else f"{year}-Q{(month + 2) // 3}"

    def of(self, pseudonym: str) -> str:
        """Return the block of a pseudonym, where blocks go by hash."""
        return f"h{int(pseudonym, 16) % self.count:03}"

    def known(self, block: str) -> bool:
        """Whether a block may be called so; every block has one spelling."""
        if self.period:
            return _NAMES[self.period].fullmatch(block) is not None
        return re.fullmatch(r"h[0-9]{3}", block) is not None and int(block[1:]) < self.count

    def between(self, first: str, last: str) -> tuple[str, ...]:
        """Return every block that exists at the time `last`, in a population opened at `first`; in order."""
        if not self.period:
            return tuple(f"h{index:03}" for index in range(self.count))
        year, month = int(first[:4]), int(first[5:7])
        end, found = (int(last[:4]), int(last[5:7])), dict[str, None]()
        while (year, month) <= end:
            found[self.at(f"{year:04}-{month:02}")] = None
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        return tuple(found)


def check_rule(rule: str, relation: str) -> None:
    """Refuse a rule that is none, or a neighbouring relation under which blocks are not independent.

    Raises:
        InvalidRequest: says why.
    """
    if not rule:
        return
    Blocks.parse(rule)
    if relation != ADD_OR_REMOVE:
        raise InvalidRequest(
            f"blocks need the relation {ADD_OR_REMOVE!r}, got {relation!r}: replacing a person by another "
            "would change two blocks at once. Leave `blocks` out, or use add-or-remove-one."
        )


def split(account: str) -> tuple[str, str]:
    """Return population and block of an account's name; the block is empty for a whole population."""
    population, _, block = account.partition(MARK)
    return population, block


def rule_of(body: Mapping[str, Any]) -> Blocks | None:
    """Return the rule in a population's row."""
    return Blocks.parse(body["blocks"]) if body.get("blocks") else None


def chosen(population: str, body: Mapping[str, Any], blocks: Sequence[str], at: str) -> tuple[str, ...]:
    """Return the blocks that a charge names, in their order; without names all that exist at a time.

    Args:
        body: of the population's row.

    Raises:
        InvalidRequest: the population has no blocks; UnknownName: it has none of that name by now.
    """
    rule = rule_of(body)
    if rule is None:
        if blocks:
            raise InvalidRequest(
                f"the population {population!r} has no blocks, and {', '.join(blocks)} was asked for: leave "
                "`blocks` out"
            )
        return ()
    existing = rule.between(body["opened"], at)
    for block in blocks:
        if block not in existing:
            raise UnknownName(f"block of {population!r}", block, existing[-24:])
    return tuple(block for block in existing if block in blocks) if blocks else existing
