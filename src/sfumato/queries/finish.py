"""From noisy whole numbers to an answer. All of it is post-processing: no data, no permit, and so no cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.mechanisms.exact import Kind
from sfumato.queries import laws, notes, quantiles, ratios, rollup
from sfumato.queries.answer import Answer, Cost, columns
from sfumato.queries.bounded import Measure
from sfumato.queries.measures import Bounds, key
from sfumato.queries.model import Aggregate, Binned, Key, Query, Terms
from sfumato.queries.ratios import Figures
from sfumato.queries.spread import Floats, Spread

#: Comparisons of `having`.
COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "=": pc.equal,
    "<>": pc.not_equal,
}


@dataclass(frozen=True, slots=True)
class Noisy:
    """A measure with its noise on.

    Args:
        law: of the noise.
        scales: of Laplace noise, or variances of Gaussian, one for each of `values`.
        values: int64 (cells,), or (cells, nodes) of `bins`: one array; for a rollup one for each level, from
            all keys to none; of `bins`, for each level in turn, one for each level of the tree, from the top
            down. But for `units`, exact totals must be sums of the exact cells below them.
    """

    measure: Measure
    law: Kind
    scales: tuple[Fraction, ...]
    values: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """What is known about a question besides its noisy numbers.

    Args:
        needed: for each aggregate of the query, its measures (`measures.needs`).
        bounds: of the values of figures that have any, by name.
        whole: names of figures of whole numbers.
    """

    needed: tuple[tuple[Measure, ...], ...]
    terms: Terms = field(default_factory=Terms)
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    whole: Collection[str] = ()


def check(query: Query) -> tuple[str, ...]:
    """Return the columns that the answer will have; call it before the charge.

    >>> check(Query(table="flow", aggregates=(Aggregate("count", "n"),)))
    ('n', 'n_error', 'n_low', 'n_high')

    Raises:
        InvalidRequest: two columns of one name, a comparison that is not known, or a limit below 1.
        UnknownName: `having` or `order` names something that the answer does not have.
    """
    figures = tuple(item.name for item in query.aggregates)
    names = columns(tuple(item.name for item in query.keys), figures)
    for name, op, _ in query.having:
        if name not in figures:
            raise UnknownName("figure in HAVING", name, figures)
        if op not in COMPARE:
            raise UnknownName("comparison", op, COMPARE)
    for item in query.order:
        if item.by not in names:
            raise UnknownName("column in ORDER BY", item.by, names)
    if query.limit is not None and query.limit < 1:
        raise InvalidRequest(f"LIMIT must be 1 or more, got {query.limit}")
    return names


def finish(
    query: Query,
    keys: pa.Table | Sequence[Key],
    noisy: Sequence[Noisy],
    known: Finishing,
    *,
    cost: Cost | None = None,
    guarantee: str = "",
    remarks: Sequence[str] = (),
) -> Answer:
    """Return the answer to a question.

    Guarantee: it depends on the data through `noisy` alone.

    Args:
        keys: one row per cell, in the order of the noisy values; or the keys with their public values.
        noisy: every measure of `known.needed`, at every level and depth that it has.
        remarks: notes to put first.

    Raises:
        InvalidRequest: noisy numbers that are missing or of another shape.
    """
    names = check(query)
    cells = keys if isinstance(keys, pa.Table) else product(keys)
    tables = _Tables(query, cells, noisy, known.terms.consistent)
    figures: dict[str, pa.Array] = {}
    missing: list[str] = []
    for aggregate, measures in zip(query.aggregates, known.needed, strict=True):
        parts = [_figures(aggregate, measures, tables, level, known) for level in tables.levels]
        joined = Figures(
            *(
                np.concatenate(end)
                for end in zip(*((p.value, p.error, p.low, p.high) for p in parts), strict=True)
            )
        )
        figures |= _arrays(aggregate, joined, _whole(aggregate, measures, known))
        if np.isnan(joined.value).any():
            missing.append(aggregate.name)
    table = pa.table({**tables.keys, **figures}).select(list(names)).take(tables.order)
    said = notes.notes(query, known.needed, known.terms, missing)
    return Answer(
        table=_chosen(table, query),
        keys=tuple(item.name for item in query.keys),
        figures=tuple(item.name for item in query.aggregates),
        notes=(*remarks, *said),
        cost=cost or Cost(Fraction(0)),
        guarantee=guarantee,
    )


@dataclass(frozen=True, slots=True)
class _Array:
    """Numbers with the noise of one scale on each."""

    law: Kind
    scale: Fraction
    values: NDArray[np.int64]

    @property
    def spread(self) -> Spread:
        return Spread.of(self.law, self.scale)


def product(keys: Sequence[Key]) -> pa.Table:
    """Return one row for each combination of public values, the last key fastest.

    >>> from sfumato.queries.model import Column
    >>> product([Key("a", Column("a"), (1, 2)), Key("b", Column("b"), ("x", "y"))]).to_pylist()[1]
    {'a': 1, 'b': 'y'}
    """
    sizes = [len(item.values or ()) for item in keys]
    places = np.unravel_index(np.arange(math.prod(sizes)), sizes) if keys else ()
    return pa.table(
        {item.name: pa.array(item.values or ()).take(at) for item, at in zip(keys, places, strict=True)}
    )


class _Tables:
    """Noisy numbers of every level, made consistent where they are to add up."""

    def __init__(self, query: Query, keys: pa.Table, noisy: Sequence[Noisy], consistent: bool) -> None:
        count = len(query.keys)
        self.sizes = _sizes(keys, count) if query.rollup else (keys.num_rows if count else 1,)
        self.levels = list(range(count, -1, -1)) if query.rollup else [count]
        self.together = query.rollup and consistent and count > 0
        self._noisy = {key(one.measure): one for one in noisy}
        self._found: dict[str, list[tuple[Floats, Spread]]] = {}
        self.keys, self.order = _rows(query, keys, self.levels, self.sizes)

    def cells(self, level: int) -> int:
        """Return how many cells a level has."""
        return self.sizes[level] if len(self.levels) > 1 else self.sizes[0]

    def raw(self, measure: Measure, level: int) -> list[_Array]:
        """Return the noisy numbers of a level as they came: one array, or as many as a tree of bins has."""
        found = self._noisy.get(key(measure))
        shapes: list[tuple[int, ...]] = [(self.cells(level),)]
        if isinstance(measure.of, Binned) and measure.kind == "bins":
            shapes = [(self.cells(level), nodes) for nodes in quantiles.levels(measure.of.count)]
        first = self.levels.index(level) * len(shapes)
        came = slice(first, first + len(shapes))
        if found is None or [one.shape for one in found.values[came]] != shapes:
            got = [] if found is None else [one.shape for one in found.values]
            raise InvalidRequest(
                f"noisy {measure.kind} must have the shapes {shapes} from {first}, got {got}"
            )
        return [
            _Array(found.law, scale, values)
            for scale, values in zip(found.scales[came], found.values[came], strict=True)
        ]

    def get(self, measure: Measure, level: int) -> tuple[Floats, Spread]:
        """Return numbers of a level and the spread of the noise on each."""
        if not self.adds_up(measure):
            (one,) = self.raw(measure, level)
            return one.values.astype(np.float64), one.spread
        return self.tree(measure)[level]

    def adds_up(self, measure: Measure) -> bool:
        """Return whether the numbers of this measure were made to add up."""
        return self.together and measure.kind not in ("units", "bins")

    def tree(self, measure: Measure) -> list[tuple[Floats, Spread]]:
        """Return the consistent numbers of every level, from the grand total on."""
        name = key(measure)
        if name not in self._found:
            came = [self.raw(measure, level)[0] for level in reversed(self.levels)]
            noise = [one.spread for one in came]
            best = rollup.consistent([one.values for one in came], noise)
            left = rollup.spreads(self.sizes, noise)
            self._found[name] = list(zip(best, left, strict=True))
        return self._found[name]


def _figures(
    aggregate: Aggregate, measures: tuple[Measure, ...], tables: _Tables, level: int, known: Finishing
) -> Figures:
    """Return one aggregate in the cells of one level."""
    if aggregate.kind in ("count", "units", "sum"):
        return _total(measures[0], tables, level, known.terms, _whole(aggregate, measures, known))
    if aggregate.kind == "quantile":
        return _quantile(aggregate, measures[0], tables, level, known)
    rows, of_rows = tables.get(measures[0], level)
    sums, of_sums = tables.get(measures[1], level)
    grid = measures[1]
    bounds = (float(grid.low - grid.centre), float(grid.high - grid.centre))
    if aggregate.kind == "mean":
        return ratios.mean(sums, rows, (of_sums, of_rows), bounds).on_grid(grid.step, grid.centre)
    squares, of_squares = tables.get(measures[2], level)
    found = ratios.variance(squares, sums, rows, (of_squares, of_sums, of_rows), bounds)
    found = found.on_grid(grid.step**2)
    return found if aggregate.kind == "variance" else ratios.root(found)


def _total(measure: Measure, tables: _Tables, level: int, terms: Terms, whole: bool) -> Figures:
    """Return counts or sums, finished as the terms say."""
    positive = terms.non_negative and measure.low >= 0
    if tables.adds_up(measure):
        values, spread = tables.get(measure, level)
        width, error = spread.half_width, spread.deviation
        low, high = values - width, values + width
        shown = [numbers for numbers, _ in tables.tree(measure)]
        shown = rollup.non_negative(shown) if positive else shown
        values = (rollup.whole(shown) if whole else shown)[level].astype(np.float64)
    else:
        (one,) = tables.raw(measure, level)
        values, error = one.values.astype(np.float64), laws.deviation(one.law, one.scale)
        reach = laws.interval(one.law, one.scale)
        low, high = values - reach, values + reach
        values = np.maximum(values, 0) if positive else values
    if positive:
        low, high = np.maximum(low, 0), np.maximum(high, 0)
    if whole:
        # The true number is whole, so that the interval may be cut to whole numbers.
        low, high = np.ceil(low), np.floor(high)
    found = Figures(values, np.full_like(values, error), np.minimum(low, values), np.maximum(high, values))
    return found.on_grid(measure.step) if measure.kind == "sum" else found


def _quantile(
    aggregate: Aggregate, measure: Measure, tables: _Tables, level: int, known: Finishing
) -> Figures:
    grid = measure.of
    if not isinstance(grid, Binned) or aggregate.quantile is None:
        raise InvalidRequest(f"{aggregate.name}: a quantile needs bins and its share, got {measure}")
    tree = tables.raw(measure, level)
    low, high = known.bounds.get(aggregate.name, (grid.low, grid.low + grid.width * grid.count))
    return quantiles.quantile(
        [one.values for one in tree],
        [one.spread for one in tree],
        aggregate.quantile,
        (grid.low, grid.width),
        (float(low), float(high)),
        whole=aggregate.name in known.whole,
    )


def _whole(aggregate: Aggregate, measures: tuple[Measure, ...], known: Finishing) -> bool:
    """Return whether a figure is told in whole numbers."""
    if not known.terms.integers:
        return False
    if aggregate.name in known.whole and aggregate.kind in ("sum", "quantile"):
        of = measures[0].of
        step = of.width if isinstance(of, Binned) else measures[0].step
        return step == 1 if aggregate.kind == "quantile" else step.denominator == 1
    return aggregate.kind in ("count", "units")


def _arrays(aggregate: Aggregate, figures: Figures, whole: bool) -> dict[str, pa.Array]:
    """Return the four columns of a figure."""

    def array(values: Floats, whole: bool) -> pa.Array:
        absent = np.isnan(values)
        if whole:
            return pa.array(np.clip(np.nan_to_num(values), -(2.0**62), 2.0**62).astype(np.int64), mask=absent)
        return pa.array(values, mask=absent)

    name = aggregate.name
    return {
        name: array(figures.value, whole),
        f"{name}_error": array(figures.error, False),
        f"{name}_low": array(figures.low, whole),
        f"{name}_high": array(figures.high, whole),
    }


def _sizes(keys: pa.Table, count: int) -> tuple[int, ...]:
    """Return how many cells every level of a rollup has, from the grand total on."""
    sizes = [1]
    for at in range(count):
        sizes.append(sizes[-1] * len(pc.unique(keys.column(at))))
    if count and sizes[-1] != keys.num_rows:
        raise InvalidRequest(
            f"totals of a rollup need all {sizes[-1]} combinations of public keys, got {keys.num_rows} groups"
        )
    return tuple(sizes)


def _rows(
    query: Query, keys: pa.Table, levels: Sequence[int], sizes: Sequence[int]
) -> tuple[dict[str, pa.Array], NDArray[np.int64]]:
    """Return key columns for the cells of all levels, and the order of rows: totals after their parts."""
    parts, ends, depths = [], [], []
    for level in levels:
        cells = sizes[level] if len(levels) > 1 else sizes[0]
        stride = max(1, keys.num_rows // cells) if len(levels) > 1 else 1
        picked = keys.take(np.arange(cells) * stride) if query.keys else keys
        parts.append(
            [
                picked.column(at) if at < level else pa.chunked_array([pa.nulls(cells, keys.column(at).type)])
                for at in range(len(query.keys))
            ]
        )
        ends.append((np.arange(cells) + 1) * stride)
        depths.append(np.full(cells, -level))
    named = {
        item.name: pa.chunked_array([chunk for part in parts for chunk in part[at].chunks])
        for at, item in enumerate(query.keys)
    }
    return named, np.lexsort((np.concatenate(depths), np.concatenate(ends)))


def _chosen(table: pa.Table, query: Query) -> pa.Table:
    """Return the rows that HAVING, ORDER BY and LIMIT leave: what is missing passes no test and is last."""
    for name, op, number in query.having:
        table = table.filter(pc.fill_null(COMPARE[op](table.column(name), pa.scalar(float(number))), False))
    for item in reversed(query.order):
        # One stable sort for each, the least important first, so that what is missing comes last in each.
        keys = [(item.by, "descending" if item.descending else "ascending")]
        table = table.take(pc.sort_indices(table, sort_keys=keys))
    return table if query.limit is None else table.slice(0, query.limit)
