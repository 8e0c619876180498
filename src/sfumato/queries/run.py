"""Asking: charge, count exactly, add noise, keep the answer, settle; whatever happens in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import EngineFailed, IntegrityError, InvalidRequest, MissingExtra, PolicyRefused
from sfumato.core.files import digest_of
from sfumato.core.gate import Gate, Permit
from sfumato.core.numbers import text
from sfumato.core.receipt import Output, Receipt
from sfumato.mechanisms.discrete import Noise
from sfumato.queries.answer import Answer, Cost
from sfumato.queries.bounded import Bounded, Cells, Engine, TableRef
from sfumato.queries.finish import Finishing, Noisy, finish
from sfumato.queries.measures import key
from sfumato.queries.notes import few_units
from sfumato.queries.plan import Planned
from sfumato.queries.pricing import Draw
from sfumato.queries.quantiles import tree_sums
from sfumato.queries.store import Kept, Store

if TYPE_CHECKING:
    import pyarrow as pa

Engines = Callable[[Sequence[TableRef]], Engine]
#: Sums are clipped to this before noise, so that no data can make anything overflow. Clipping moves
#: neighbours no further apart.
MOST = 2**61
SALT_BYTES = 16
#: What an engine says of the question, before it reads any row.
PUBLIC = (InvalidRequest, MissingExtra, PolicyRefused, IntegrityError)
KEY_BYTES = 32


def run_query(planned: Planned, gate: Gate, store: Store, engines: Engines) -> Answer:
    """Return the answer to a planned question: the one that was given before, or a new one.

    Guarantee (proven):
        That of the plan. The charge is durable before noise is drawn; the answer is durable before it is
        shown. The same question to the same data is never answered twice with fresh noise.

    Raises:
        PolicyRefused, BudgetSpent, IntegrityError: nothing was charged and nothing was read.
    """
    gate.check(planned.plan)
    digest = question_digest(planned)
    with store.locked(digest):
        kept = store.read(digest)
        if kept is not None:
            return _again(planned, gate, store, digest, kept)
        secret = SYSTEM.bytes(KEY_BYTES)
        with gate.open(planned.plan, key=secret) as permit:
            cells = _exact(engines, planned, permit)
            answer = _released(planned, cells, permit)
            kept = Kept(answer.to_json(), permit.reservation, secret)
            store.write(digest, kept)
            return _settled(answer, gate, permit, store, digest, kept)


def question_digest(planned: Planned) -> str:
    """Return what tells questions apart: all that the answer depends on, and which data are read."""
    plan = planned.plan
    return digest_of(
        {
            "plan": plan.to_data(),
            "data": [list(pair) for pair in plan.datasets],
            "versions": [table.version for table in planned.tables.values()],
            "draws": [[text(draw.scale), draw.law, draw.level] for draw in planned.draws],
            "measures": [key(one) for one in planned.measures],
            "keys": [[one.name, repr(one.of), repr(one.values)] for one in planned.keys],
            "private": planned.private,
            "kinds": [[table.unit, sorted(table.kinds.items())] for table in planned.tables.values()],
            "clamps": [
                sorted([name, text(low), text(high)] for name, (low, high) in table.clamps().items())
                for table in planned.tables.values()
            ],
        }
    )


def _again(planned: Planned, gate: Gate, store: Store, digest: str, kept: Kept) -> Answer:
    """Return an answer that was given; one whose release was not settled, after a crash, is settled first."""
    answer = Answer.from_json(kept.answer)
    if kept.receipt:
        return replace(answer, replayed=True, receipt=kept.receipt)
    if kept.reservation is None:
        raise IntegrityError(
            "a kept answer names no row of the ledger that paid for it: remove it and ask again"
        )
    ended = gate.ledger.book.end_of(kept.reservation) if gate.ledger is not None else None
    if ended is not None:
        store.write(digest, replace(kept, receipt=f"row {ended.seq}"))
        return replace(answer, replayed=True, receipt=f"row {ended.seq}")
    with gate.resume(kept.reservation, planned.plan, key=kept.key, steps=0) as permit:
        return replace(_settled(answer, gate, permit, store, digest, kept), replayed=True)


def _settled(answer: Answer, gate: Gate, permit: Permit, store: Store, digest: str, kept: Kept) -> Answer:
    data = kept.answer.encode()
    output = Output(hashlib.sha256(data).hexdigest(), len(data))
    receipt = permit.settle([output], facts={"figures": len(answer.figures)})
    name = _name(receipt)
    store.write(digest, replace(kept, receipt=name))
    return replace(answer, receipt=name)


def _name(receipt: Receipt) -> str:
    """Return the name under which the gate keeps a receipt."""
    return f"{receipt.rows[-1].seq:012d}-{receipt.digest[:16]}.json" if receipt.rows else receipt.digest[:16]


def _exact(engines: Engines, planned: Planned, permit: Permit) -> Cells:
    asked = _asked(planned)
    try:
        engine = engines(asked.tables)
        try:
            found = engine.bounded(asked)
        finally:
            engine.close()
    except PUBLIC:
        raise
    except Exception as error:
        # Whether an engine fails may depend on the rows: a failure that costs nothing could be asked for over
        # and over. And what it says may quote a row; so may the errors that led to it.
        permit.releasing()
        raise EngineFailed(
            f"the engine could not answer ({type(error).__name__}). The charge stands, since that alone may "
            "tell of the data. Its own words are kept out, since they may quote data: see its log"
        ) from None
    if changed := [table.name for table in planned.tables.values() if not table.unchanged]:
        raise InvalidRequest(
            f"the table of {', '.join(changed)} was changed while it was read; nothing was charged. Ask again"
        )
    return found


def _asked(planned: Planned) -> Bounded:
    query = planned.query
    return Bounded(
        tables=tuple(table.ref(alias) for alias, table in planned.tables.items()),
        joins=tuple(join.kind for join in query.joins),
        where=query.where,
        keys=planned.keys,
        groups=planned.groups,
        rows=planned.rows,
        measures=planned.measures,
        salt=SYSTEM.bytes(SALT_BYTES),
        private=planned.private,
    )


def _released(planned: Planned, cells: Cells, permit: Permit) -> Answer:
    noise = Noise(permit)
    exact = [np.clip(values, -MOST, MOST) for values in cells.values]
    keys = cells.keys
    drawn: Mapping[int, NDArray[np.int64]] = {}
    if planned.private:
        if keys is None:
            raise InvalidRequest("this engine cannot choose groups privately: use another")
        keys, exact, drawn = _selected(planned, keys, exact, noise)
    noisy = []
    for index, measure in enumerate(planned.measures):
        levels = _levels(planned, index, exact[index])
        values = [drawn[index] if index in drawn else _add(noise, draw, each) for draw, each in levels]
        noisy.append(Noisy(measure, planned.law, tuple(draw.scale for draw, _ in levels), tuple(values)))
    plan = planned.plan
    return finish(
        planned.query,
        keys if keys is not None else planned.keys,
        noisy,
        Finishing(needed=planned.needed, terms=planned.terms, bounds=planned.bounds, whole=planned.whole),
        cost=Cost(planned.epsilon, planned.delta, planned.rho, plan.population, plan.share),
        guarantee=plan.statement,
        remarks=_remarks(planned),
    )


def _remarks(planned: Planned) -> tuple[str, ...]:
    """Return what readers have to know about groups that were chosen privately."""
    if not planned.private:
        return ()
    people = next(one for one in planned.draws if planned.measures[one.measure].kind == "units")
    return (few_units(people.law, people.scale, planned.threshold, planned.unit),)


def _levels(planned: Planned, index: int, values: NDArray[np.int64]) -> list[tuple[Draw, NDArray[np.int64]]]:
    """Return the draws of a measure, each with the exact numbers that it makes noisy."""
    draws = [draw for draw in planned.draws if draw.measure == index]
    if planned.measures[index].kind == "bins":
        return list(zip(draws, tree_sums(values), strict=True))
    if not planned.query.rollup:
        return [(draws[0], values)]
    shape = tuple(len(one.values or ()) for one in planned.keys)
    least = MOST // max(1, values.size)
    table = np.clip(values, -least, least).reshape(shape)
    return [(draw, table.sum(axis=tuple(range(draw.level, len(shape)))).reshape(-1)) for draw in draws]


def _add(noise: Noise, draw: Draw, values: NDArray[np.int64]) -> NDArray[np.int64]:
    if draw.law == "gaussian":
        return noise.gaussian(values, draw.scale)
    add = noise.rounded_laplace if draw.law == "rounded" else noise.laplace
    return add(values, draw.scale)


def _selected(
    planned: Planned, keys: pa.Table, exact: list[NDArray[np.int64]], noise: Noise
) -> tuple[pa.Table, list[NDArray[np.int64]], Mapping[int, NDArray[np.int64]]]:
    """Return the groups whose noisy number of people reaches the threshold, with that number."""
    draw = next(one for one in planned.draws if planned.measures[one.measure].kind == "units")
    people = _add(noise, draw, exact[draw.measure])
    kept = np.flatnonzero(people >= planned.threshold)
    # In an order that says nothing of the table.
    rank = (
        keys.take(kept).append_column("", [kept]).sort_by([(name, "ascending") for name in keys.column_names])
    )
    kept = rank[""].to_numpy()
    return keys.take(kept), [values[kept] for values in exact], {draw.measure: people[kept]}
