"""Whose budget, what is spent and what is left, from the ledger's rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from sfumato.core.accounting import Share, Totals
from sfumato.core.book import Entry
from sfumato.core.numbers import brief, text

#: A curve keeps the newest row of each of so many stretches of the ledger.
POINTS = 120


def populations(rows: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the populations with their budgets as they now are, in the order they were opened."""
    newest: dict[str, Entry] = {}
    for row in rows:
        if row.kind == "population":
            newest[row.share] = row
    return [
        {
            "name": name,
            "unit": row.body["unit"],
            "relation": row.body["relation"],
            "epsilon": text(Fraction(row.body["epsilon"])),
            "delta": text(Fraction(row.body["delta"])),
            "blocks": row.body.get("blocks", ""),
            "from": {"rows": [row.seq]},
        }
        for name, row in newest.items()
    ]


def shares(rows: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return every share: its terms, what is spent (rounded up) and left (rounded down), and its curve.

    An account of one block of a population is called "POPULATION#BLOCK". Where there are blocks, the share
    of the population itself is the template of theirs, and is never charged.
    """
    cut = {row.share for row in rows if row.kind == "population" and row.body.get("blocks")}
    opened, moves = moves_of(rows)
    result = []
    for name, row in opened.items():
        terms, last = Share.from_data(row.body["terms"]), moves[name][-1]
        epsilon, delta = terms.spent(Totals.from_data(last.body["after"]))
        account, _, share = name.partition("/")
        population, _, block = account.partition("#")
        left = max(terms.epsilon - epsilon, Fraction(0))
        result.append(
            {
                "population": population,
                "block": block,
                "share": share,
                "template": population in cut and not block,
                "kind": terms.kind,
                "epsilon": text(terms.epsilon),
                "delta": text(terms.delta),
                "spent_epsilon": brief(epsilon),
                "spent_delta": brief(delta),
                "left_epsilon": brief(left, up=False),
                "spent_part": _part(epsilon, terms.epsilon),
                "from": {"rows": sorted({row.seq, last.seq})},
                "curve": _curve(terms, moves[name], len(rows)),
            }
        )
    return result


def moves_of(rows: Sequence[Entry]) -> tuple[dict[str, Entry], dict[str, list[Entry]]]:
    """Return the row that opened each share, and the rows after which its totals were others."""
    opened: dict[str, Entry] = {}
    moves: dict[str, list[Entry]] = {}
    for row in rows:
        if row.kind == "share":
            opened[row.share] = row
        if row.share in opened and "after" in row.body:
            moves.setdefault(row.share, []).append(row)
    return opened, moves


def _curve(terms: Share, moves: Sequence[Entry], rows: int) -> list[dict[str, Any]]:
    kept: dict[int, Entry] = {}
    for row in moves:
        kept[row.seq * POINTS // (rows + 1)] = row
    points = []
    for row in (moves[0], *(row for row in kept.values() if row is not moves[0])):
        epsilon, _ = terms.spent(Totals.from_data(row.body["after"]))
        points.append(
            {
                "at": row.body["at"],
                "spent_epsilon": brief(epsilon),
                "part": _part(epsilon, terms.epsilon),
                "from": {"rows": [row.seq]},
            }
        )
    return points


def _part(spent: Fraction, whole: Fraction) -> str:
    """Return a percentage, rounded up to a tenth: a budget that is touched is never shown as whole."""
    if not whole:
        return "100"
    tenths = -(-min(spent / whole, Fraction(1)) * 1000 // 1)
    return text(Fraction(int(tenths), 10))
