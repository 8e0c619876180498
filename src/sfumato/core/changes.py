"""What may be changed about a budget once it is in the ledger, and how it may be called."""

from __future__ import annotations

from fractions import Fraction

from sfumato.core.accounting import Share
from sfumato.core.blocks import MARK
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.numbers import text


def check_name(name: str) -> None:
    """Refuse a name that would not fit into the book's "population/share"."""
    if not name or "/" in name or len(name) > 100 or not name.isprintable():
        raise InvalidRequest(f"a name must be 1 to 100 printable characters without '/', got {name!r}")


def check_population(name: str) -> None:
    """Refuse a name that a population cannot have; a # parts it from a block in the book."""
    check_name(name)
    if MARK in name:
        raise InvalidRequest(f"a population's name has no {MARK!r}, which names its blocks; got {name!r}")


def check_change(
    name: str, old: dict[str, str], new: dict[str, str], held: tuple[Fraction, Fraction], reason: str
) -> None:
    """Refuse a change of a population that is no lowering and no raise with a reason."""
    if (was_cut := old.get("blocks", "")) != (cut := new.get("blocks", "")):
        raise PolicyRefused(
            f"population {name!r} has the blocks {was_cut or 'none'!r} in the ledger, and {cut or 'none'!r} "
            "was asked for. How people are cut into blocks is fixed for ever, or old people would get fresh "
            "budget: put it back, or declare a new population for new people."
        )
    for key in ("unit", "relation"):
        if old[key] != new[key]:
            raise PolicyRefused(
                f"population {name!r} has {key} {old[key]!r} in the ledger, and {new[key]!r} was asked for. "
                "What was charged so far was charged for the old one: declare a new population instead."
            )
    for key, least in zip(("epsilon", "delta"), held, strict=True):
        was, wanted = Fraction(old[key]), Fraction(new[key])
        if wanted < least:
            raise PolicyRefused(
                f"population {name!r} cannot have {key} {text(wanted)}: its shares already hold {text(least)}"
            )
        if wanted > was and not reason:
            raise PolicyRefused(
                f"population {name!r} has {key} {text(was)} in the ledger, and the policy asks for "
                f"{text(wanted)}. A budget is raised on purpose or not at all: run `sfumato ledger raise "
                f"{name} --reason ...` after editing sfumato.toml, or put {text(was)} back."
            )


def check_same(population: str, name: str, old: Share, new: Share) -> None:
    """Refuse other terms for a share that is open."""
    for key in ("kind", "epsilon", "delta", "relation"):
        if getattr(old, key) != getattr(new, key):
            was, wanted = getattr(old, key), getattr(new, key)
            shown = (text(was), text(wanted)) if isinstance(was, Fraction) else (was, wanted)
            raise PolicyRefused(
                f"share {population}/{name} was opened with {key} {shown[0]}, and {shown[1]} is asked for. A "
                "share is fixed once opened, because its guarantee was proved for those numbers: put them "
                "back, and declare a new share for the rest of the budget."
            )
