"""Reading a whole ledger again, row by row, and checking that every rule was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sfumato.core import claims, vaults, versions
from sfumato.core.accounting import GRID, Share, Totals
from sfumato.core.blocks import MARK, check_rule, chosen, rule_of, split
from sfumato.core.book import ROOT_HASH, Entry
from sfumato.core.changes import check_change
from sfumato.core.errors import InvalidRequest, LedgerTampered, PolicyRefused
from sfumato.core.event import Event, NoEvent
from sfumato.core.ledger import ENDS, Ledger
from sfumato.core.raising import fault
from sfumato.core.version_rows import key_of

ROUNDING = Fraction(1, 10**7)


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verified ledger holds.

    Args:
        unfinished: reservations without an end; their charge stands.
        anchored: whether an anchor outside the book vouches for its age.
    """

    rows: int
    releases: int
    unfinished: tuple[int, ...]
    anchored: bool
    head: str


@dataclass
class _Reading:
    prev: str = ROOT_HASH
    seq: int = 0
    at: str = ""
    populations: dict[str, dict[str, str]] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    reserved: dict[int, Entry] = field(default_factory=dict)
    releases: int = 0
    roles: bool = False
    declared: dict[str, int] = field(default_factory=dict)
    proposals: dict[int, Entry] = field(default_factory=dict)
    #: Rows that must come next, because a release of several accounts was begun or ended: kind, share, ref.
    due: list[tuple[str, str, int | None]] = field(default_factory=list)
    first: Entry | None = None
    members: dict[int, list[Entry]] = field(default_factory=dict)
    versions: dict[str, list[Entry]] = field(default_factory=dict)
    labels: dict[tuple[str, str], Entry] = field(default_factory=dict)
    vault: Entry | None = None
    claims: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def verify(ledger: Ledger, *, progress: Callable[[int], None] | None = None) -> Verification:
    """Read every row and check chain, order, charges, totals and limits; return what the book holds.

    Charges are computed again from the events, so an edited charge shows even where the chain was forged.

    Raises:
        LedgerTampered: names the first row that does not verify, and why.
        LedgerRolledBack: the book is older than its anchor or a known receipt.
    """
    ledger.check()
    state = _Reading()
    for entry in ledger.entries():
        try:
            _link(state, entry)
            _RULES[entry.kind](state, entry)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise _bad(entry, f"it does not read ({type(error).__name__}: {error})") from error
        except PolicyRefused as error:
            raise _bad(entry, str(error)) from error
        if progress is not None:
            progress(entry.seq)
    if state.due and state.first is not None:
        raise _bad(state.first, "the rows of its other accounts are missing")
    newest = ledger.anchor.newest() if ledger.anchor is not None else None
    unfinished = tuple(seq for seq, row in state.reserved.items() if "of" not in row.body)
    return Verification(state.seq, state.releases, unfinished, newest is not None, state.prev)


def _link(state: _Reading, entry: Entry) -> None:
    if entry.seq != state.seq + 1:
        raise _bad(entry, f"row {state.seq + 1} is missing")
    if entry.prev != state.prev:
        raise _bad(entry, "it does not follow from the row before")
    if entry.kind not in _RULES:
        raise _bad(entry, f"its kind {entry.kind!r} is not known")
    if (entry.kind == "genesis") != (entry.seq == 1):
        raise _bad(entry, "a ledger is opened by its first row only")
    if (entry.ref is not None) != (entry.kind in ENDS):
        raise _bad(entry, "it ends a reservation exactly when it is a settlement or a void")
    at = entry.body.get("at", "")
    if at < state.at:
        raise _bad(entry, "its time lies before that of the row before")
    _in_its_group(state, entry)
    state.seq, state.prev, state.at = entry.seq, entry.hash, at


def _in_its_group(state: _Reading, entry: Entry) -> None:
    """Check that the rows of a release of several accounts follow each other, complete, and as one."""
    grouped = entry.kind in ("reserve", "settle", "void") and "of" in entry.body
    if not state.due:
        if grouped:
            raise _bad(entry, "it belongs to a release whose first row does not name it")
        return
    first = state.first
    assert first is not None
    if state.due.pop(0) != (entry.kind, entry.share, entry.ref) or entry.body.get("of") != first.seq:
        raise _bad(entry, f"a row of the release of row {first.seq} must stand here")
    if entry.body["at"] != first.body["at"]:
        raise _bad(entry, f"it has another time than row {first.seq} of the same release")
    if entry.kind == "reserve":
        if entry.body["event"] != first.body["event"]:
            raise _bad(entry, f"it charges another event than row {first.seq} of the same release")
        state.members[first.seq].append(entry)
    elif entry.body.get("event", first.body.get("event")) != first.body.get("event", entry.body.get("event")):
        raise _bad(entry, f"it settles to another event than row {first.seq} of the same release")


def _genesis(state: _Reading, entry: Entry) -> None:
    pass


def _population(state: _Reading, entry: Entry) -> None:
    new = {key: entry.body[key] for key in ("epsilon", "delta", "unit", "relation")}
    if "blocks" in entry.body or MARK in entry.share:
        _cut(state, entry, new)
    if (old := state.populations.get(entry.share)) is not None:
        check_change(entry.share, old, new, _held(state, entry.share), entry.body.get("reason", ""))
        if state.roles and any(Fraction(new[key]) > Fraction(old[key]) for key in ("epsilon", "delta")):
            approval = entry.body.get("approval", {})
            proposal = state.proposals.get(approval.get("proposal"))
            if problem := fault(
                proposal, state.declared[entry.share], entry.share, new, approval, entry.body["at"]
            ):
                raise _bad(entry, f"it raises a budget, and {problem}")
    state.populations[entry.share], state.declared[entry.share] = new, entry.seq


def _held(state: _Reading, population: str) -> tuple[Fraction, Fraction]:
    held = [share for name, share in state.shares.items() if name.partition("/")[0] == population]
    zero = Fraction(0)
    return sum((share.epsilon for share in held), zero), sum((share.delta for share in held), zero)


def _roles(state: _Reading, entry: Entry) -> None:
    state.roles = True


def _proposal(state: _Reading, entry: Entry) -> None:
    state.proposals[entry.seq] = entry


def _refusal(state: _Reading, entry: Entry) -> None:
    if entry.share or entry.ref is not None:
        raise _bad(entry, "a refusal is about no share and ends nothing")


def _share(state: _Reading, entry: Entry) -> None:
    account, _, name = entry.share.partition("/")
    population, block = split(account)
    if entry.share in state.shares or population not in state.populations:
        raise _bad(entry, "a share is opened once, in a population that exists")
    terms = Share.from_data(entry.body["terms"])
    budget = state.populations[population]
    if MARK in account:
        _block(state, entry, f"{population}/{name}", block)
        return
    if terms.relation != budget["relation"]:
        raise _bad(entry, "its neighbouring relation is not its population's")
    if not _same_terms(terms, Share.new(terms.kind, terms.epsilon, terms.delta, terms.relation)):
        raise _bad(entry, "its thresholds do not follow from its epsilon and delta")
    state.shares[entry.share] = terms
    _move(state, entry, terms.nothing())
    epsilon, delta = _held(state, population)
    if epsilon > Fraction(budget["epsilon"]) or delta > Fraction(budget["delta"]):
        raise _bad(entry, "the shares add up to more than the population's budget")


def _reserve(state: _Reading, entry: Entry) -> None:
    state.reserved[entry.seq] = entry
    if entry.body.get("plan", {}).get("action") == "restore":
        _restore(entry)
    if not entry.share:
        if not isinstance(Event.from_data(entry.body["event"]), NoEvent):
            raise _bad(entry, "it has a privacy event and charges nobody")
        return
    terms = state.shares.get(entry.share)
    if terms is None:
        raise _bad(entry, "it charges a share that was never opened")
    if state.populations.get(entry.share.partition("/")[0], {}).get("blocks"):
        raise _bad(entry, "it charges a population as a whole that is cut into blocks")
    if others := entry.body.get("with"):
        if len({entry.share, *others}) != len(others) + 1 or "of" in entry.body:
            raise _bad(entry, "a release charges each of its accounts once")
        state.first, state.members[entry.seq] = entry, []
        state.due = [("reserve", other, None) for other in others]
    charge = Totals.from_data(entry.body["charge"])
    computed = terms.charge(Event.from_data(entry.body["event"]), entry.body["delta"])
    if not _follows(charge, computed):
        raise _bad(entry, "its charge does not follow from its event")
    _move(state, entry, state.totals[entry.share].plus(charge))
    if not terms.fits(state.totals[entry.share]):
        raise _bad(entry, "it was admitted beyond the share's budget")


def _restore(entry: Entry) -> None:
    """Check that a row about a restore says what was put back, and why."""
    about = entry.body["plan"]["about"]
    whole = len(about["output"]) == 64 and about["reason"].strip() and about["tracks"]
    if not whole or not all(type(track) is int for track in about["tracks"]) or entry.share:
        raise _bad(entry, "a restore names an output, tracks and a reason, and charges nobody")


def _settle(state: _Reading, entry: Entry) -> None:
    reservation = _end(state, entry)
    state.releases += "of" not in entry.body
    if not entry.share:
        return
    totals = state.totals[entry.share]
    if "event" in entry.body:
        charged = Totals.from_data(reservation.body["charge"])
        actual = Totals.from_data(entry.body["charge"])
        computed = state.shares[entry.share].settlement(
            Event.from_data(reservation.body["event"]),
            Event.from_data(entry.body["event"]),
            reservation.body["delta"],
        )
        if not _follows(actual, computed) or not actual.within(charged):
            raise _bad(entry, "it settles to something other or more than was reserved")
        totals = totals.minus(charged).plus(actual)
    _move(state, entry, totals)


def _cut(state: _Reading, entry: Entry, new: dict[str, str]) -> None:
    """Check that a population is cut into blocks as it was from the first, and since when."""
    if MARK in entry.share:
        raise _bad(entry, f"a population's name has no {MARK}")
    try:
        check_rule(entry.body["blocks"], new["relation"])
    except InvalidRequest as error:
        raise _bad(entry, str(error)) from error
    old = state.populations.get(entry.share)
    if entry.body["opened"] != (old["opened"] if old is not None and "opened" in old else entry.body["at"]):
        raise _bad(entry, "its blocks begin when the population was opened")
    new |= {"blocks": entry.body["blocks"], "opened": entry.body["opened"]}


def _block(state: _Reading, entry: Entry, template: str, block: str) -> None:
    """Check the account of a block: of a population that has it by now, with its share's exact terms."""
    body = state.populations[template.partition("/")[0]]
    rule = rule_of(body)
    if rule is None:
        raise _bad(entry, "its population has no blocks")
    if block not in rule.between(body["opened"], entry.body["at"]):
        raise _bad(entry, "its population has no such block by then")
    if template not in state.shares or entry.body["terms"] != state.shares[template].to_data():
        raise _bad(entry, "a block's account has the terms of its population's share")
    state.shares[entry.share] = state.shares[template]
    _move(state, entry, state.shares[template].nothing())


def _version(state: _Reading, entry: Entry) -> None:
    body, parents = entry.body, dict[str, set[str]]()
    if entry.share or entry.ref is not None:
        raise _bad(entry, "a version is about no share and ends nothing")
    label = body["dataset"], body["label"]
    if label in state.labels:
        raise _bad(entry, f"row {state.labels[label].seq} has that version already")
    for digest in body["parents"]:
        for row in state.versions.get(digest, ()):
            for population, blocks in row.body["populations"].items():
                parents.setdefault(population, set()).update(blocks)
    for population, blocks in body["populations"].items():
        if population not in state.populations:
            raise _bad(entry, f"it names the population {population!r}, which was never declared")
        declared = state.populations[population]
        exist = chosen(population, declared, (), body["at"])
        if not set(blocks) <= set(exist) or bool(blocks) != bool(exist) or blocks != sorted(set(blocks)):
            raise _bad(entry, f"it names blocks that {population!r} has not by then")
    whose, theirs = body["populations"], {name: tuple(blocks) for name, blocks in parents.items()}
    problem = versions.fault(body, whose, theirs, state.versions)
    if not problem and versions.from_source(body):
        problem = versions.unfinished(whose, state.populations, body["at"])
    if problem:
        raise _bad(entry, problem)
    state.versions.setdefault(body["hash"], []).append(entry)
    state.labels[label] = entry


def _retired(state: _Reading, entry: Entry) -> None:
    if entry.share or entry.ref is not None or entry.body["why"] not in versions.REASONS:
        raise _bad(entry, "it must say why a version was retired, and end nothing")
    dataset, label, digest = key_of(entry.body)
    row = state.labels.get((dataset, label))
    if row is None or row.body["hash"] != digest:
        raise _bad(entry, "it retires a version that is not in the ledger")


def _vault(state: _Reading, entry: Entry) -> None:
    if entry.share or entry.ref is not None or not isinstance(entry.body["vault"], str):
        raise _bad(entry, "it must name a vault, and is about no share and ends nothing")
    if problem := vaults.fault(entry.body, state.vault):
        raise _bad(entry, problem)
    state.vault = entry


def _claim(state: _Reading, entry: Entry) -> None:
    before = state.claims.get(entry.share)
    reservation = state.reserved.get(int(entry.share)) if entry.share.isdigit() else None
    if problem := claims.fault(reservation, before, entry):
        raise _bad(entry, problem)
    state.claims[entry.share] = entry.body


def _void(state: _Reading, entry: Entry) -> None:
    if str(entry.ref) in state.claims:
        raise _bad(entry, "it takes back a run that was taken up again, and may have drawn noise")
    reservation = _end(state, entry)
    if entry.share:
        _move(state, entry, state.totals[entry.share].minus(Totals.from_data(reservation.body["charge"])))


def _moved(state: _Reading, entry: Entry) -> None:
    if entry.share or entry.ref is not None or set(entry.body) != {"at", "to"}:
        raise _bad(entry, "it must say where the ledger was moved to, and nothing else")


def _end(state: _Reading, entry: Entry) -> Entry:
    reservation = state.reserved.pop(entry.ref or 0, None)
    if reservation is None or reservation.share != entry.share:
        raise _bad(entry, "it ends a reservation that does not exist or was ended before")
    if ("of" in reservation.body) != ("of" in entry.body):
        raise _bad(entry, "a release of several accounts ends with all of them")
    if others := state.members.pop(reservation.seq, None):
        state.first, state.due = entry, [(entry.kind, other.share, other.seq) for other in others]
    return reservation


def _follows(stored: Totals, computed: Totals) -> bool:
    """Whether a stored charge is the one computed now, up to what another build of the accountant rounds."""
    if stored == computed:
        return True
    if stored.delta != computed.delta or len(stored.renyi) != len(computed.renyi):
        return False
    if abs(stored.epsilon - computed.epsilon) > ROUNDING * computed.epsilon + Fraction(2, GRID):
        return False
    return all(
        abs(old - new) <= ROUNDING * new + (1 << 20)
        for old, new in zip(stored.renyi, computed.renyi, strict=True)
    )


def _same_terms(stored: Share, computed: Share) -> bool:
    """Whether a share's orders and thresholds are those chosen now, up to what another libm rounds."""
    return stored.orders == computed.orders and all(
        abs(old - new) <= ROUNDING * abs(new) + (1 << 20)
        for old, new in zip(stored.thresholds, computed.thresholds, strict=True)
    )


def _move(state: _Reading, entry: Entry, totals: Totals) -> None:
    if totals != Totals.from_data(entry.body["after"]):
        raise _bad(entry, "its totals do not follow from the rows before")
    state.totals[entry.share] = totals


def _bad(entry: Entry, why: str) -> LedgerTampered:
    return LedgerTampered(
        f"row {entry.seq} of the ledger ({entry.kind}) does not verify: {why}. Nothing may be released; "
        "compare with a backup and with the receipts."
    )


_RULES: dict[str, Callable[[_Reading, Entry], None]] = {
    "genesis": _genesis,
    "population": _population,
    "share": _share,
    "reserve": _reserve,
    "settle": _settle,
    "void": _void,
    "moved": _moved,
    "roles": _roles,
    "proposal": _proposal,
    "refusal": _refusal,
    "version": _version,
    "retired": _retired,
    "vault": _vault,
    "claim": _claim,
}
