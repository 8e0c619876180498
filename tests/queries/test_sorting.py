"""Sorting gives what SQL and the oracle give: of any units, in any number of buckets and parts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from oracle_of_queries import oracle

from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines import _sorting
from sfumato.queries.engines._hash import PRIME, keys_of, of_cell, of_unit
from sfumato.queries.engines._places import Places, UnknownValueError
from sfumato.queries.engines.duckdb import build
from sfumato.queries.model import Binned, Call, Column, Constant, Key

SALT = bytes(range(16))
H, V, B = Column("h"), Column("v"), Column("b")
MEASURES = (
    Measure("units"),
    Measure("rows"),
    Measure("units", of=V),
    Measure("rows", where=B),
    Measure("sum", of=V, low=-10, high=10, step=Fraction(1, 2)),
    Measure("squares", of=V, low=-3, high=8, centred=True, where=B),
    Measure("bins", of=Binned(V, Fraction(-9), Fraction(3), 7)),
    Measure("bins", of=Binned(H, Fraction(0), Fraction(1, 2), 40), where=B),
)
UNITS = {
    "from 0": lambda number: number,
    "below 0": lambda number: 3 * number - 1000,
    "far apart": lambda number: number * 30_000_000_000_000_007 - (1 << 62),
    "the least and the most": lambda number: np.where(number == 7, -(1 << 63), (1 << 63) - 1 - number),
    "text": lambda number: np.char.add("person ", number.astype(str)),
}


def question(name: str, *, cells: int = 30, groups: int = 3, rows: int = 2, count: int = 2000) -> Bounded:
    random = np.random.default_rng(count + cells)
    units = UNITS[name](random.integers(0, 300, count))
    place = pa.table(
        {
            "u": units,
            "h": random.integers(-1, cells + 1, count),
            "v": pa.array(random.integers(-30, 30, count) / 2, mask=random.random(count) < 0.1),
            "b": pa.array(random.random(count) < 0.5, mask=random.random(count) < 0.1),
        }
    )
    kinds = {"h": "integer", "v": "number", "b": "boolean", "u": "text" if name == "text" else "integer"}
    table = TableRef("t", "u", place, kinds, {"v": (Fraction(-15), Fraction(15))})
    keys = (Key("h", H, tuple(range(cells))),)
    return Bounded(
        tables=(table,),
        joins=(),
        where=Call("<", (V, Constant(14))),
        keys=keys,
        groups=groups,
        rows=rows,
        measures=MEASURES,
        salt=SALT,
    )


@pytest.fixture
def engine():
    engine = build(threads=2)
    yield engine
    engine.close()


def sorted_only(engine, monkeypatch, asked: Bounded) -> list[list[int]]:
    """Return what is counted by sorting, and by nothing else."""
    with monkeypatch.context() as patch:
        for name in ("sums", "bins"):
            patch.setattr(
                f"sfumato.queries.engines._cells.{name}", lambda *_, **__: pytest.fail("went by SQL")
            )
        return [values.tolist() for values in engine.bounded(asked).values]


def sql_only(engine, monkeypatch, asked: Bounded) -> list[list[int]]:
    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "_sorted", lambda *_: None)
        return [values.tolist() for values in engine.bounded(asked).values]


def expected(asked: Bounded) -> list[list[int]]:
    return [values.tolist() for values in oracle(asked, *(table.place for table in asked.tables)).values]


@pytest.mark.parametrize("rows", [1 << 16, 100, 7], ids=["one bucket", "some", "many"])
@pytest.mark.parametrize("name", UNITS)
def test_any_units_in_any_number_of_buckets(engine, monkeypatch, name, rows):
    monkeypatch.setattr(_sorting, "ROWS", rows)
    asked = question(name)
    wanted = expected(asked)
    assert sorted_only(engine, monkeypatch, asked) == wanted
    assert sql_only(engine, monkeypatch, asked) == wanted


@pytest.mark.parametrize(("groups", "rows"), [(1, 1), (29, 3), (30, 1), (99, 50)])
@pytest.mark.parametrize("cells", [1, 30])
def test_any_bounds(engine, monkeypatch, cells, groups, rows):
    monkeypatch.setattr(_sorting, "ROWS", 500)
    asked = question("below 0", cells=cells, groups=groups, rows=rows)
    assert sorted_only(engine, monkeypatch, asked) == expected(asked)


def test_more_buckets_than_a_byte_numbers(engine, monkeypatch):
    monkeypatch.setattr(_sorting, "ROWS", 4)
    asked = question("from 0", count=3000)
    assert _sorting.layout(asked, 300, 3000).buckets > 256
    assert sorted_only(engine, monkeypatch, asked) == expected(asked)


@pytest.mark.parametrize("name", ["far apart", "text"])
def test_in_parts_where_memory_is_small(engine, monkeypatch, name):
    asked, parts = question(name), set()
    whole = sorted_only(engine, monkeypatch, asked)
    original = _sorting.tally

    def counted(asked, table, **rest):
        parts.add(table.num_rows)
        return original(asked, table, **rest)

    monkeypatch.setattr("sfumato.queries.engines.duckdb.tally", counted)
    engine._memory = 2 * 700 * (_sorting.BYTES + 16 * len(MEASURES))
    assert sorted_only(engine, monkeypatch, asked) == whole
    assert len(parts) > 2
    assert max(parts) <= 700


def test_by_sql_where_memory_is_tiny_or_one_unit_has_all_rows(engine, monkeypatch):
    asked = question("from 0")
    wanted = expected(asked)
    monkeypatch.setattr("sfumato.queries.engines.duckdb.MOST_PARTS", 8)
    engine._memory = 1000
    with pytest.raises(pytest.fail.Exception, match="went by SQL"):
        sorted_only(engine, monkeypatch, asked)
    assert [values.tolist() for values in engine.bounded(asked).values] == wanted
    place = asked.tables[0].place.set_column(0, "u", [np.zeros(2000, np.int64)])
    asked = replace(asked, tables=(replace(asked.tables[0], place=place),))
    engine._memory = 2 * 300 * (_sorting.BYTES + 16 * len(MEASURES))
    assert [values.tolist() for values in engine.bounded(asked).values] == expected(asked)


def test_too_many_cells_go_by_sql(engine, monkeypatch):
    asked = question("from 0", cells=1 << 21)
    with pytest.raises(pytest.fail.Exception, match="went by SQL"):
        sorted_only(engine, monkeypatch, asked)
    assert _sorting.layout(question("from 0", cells=1 << 20), 1 << 40, 1 << 30) is None


def test_too_many_pairs_and_bins_for_one_number_go_by_sql(engine, monkeypatch):
    asked = question("from 0", cells=2)
    many = Measure("bins", of=Binned(V, Fraction(0), Fraction(1, 1 << 20), 1 << 20))
    asked = replace(asked, measures=(many,))
    monkeypatch.setattr(_sorting, "BITS", 50)
    with pytest.raises(pytest.fail.Exception, match="went by SQL"):
        sorted_only(engine, monkeypatch, asked)


@pytest.mark.parametrize("reach", [1 << 22, 1 << 35, 1 << 46])
def test_large_sums_are_exact(engine, monkeypatch, reach):
    """Beyond what one float adds up exactly, and up to where sums could leave 62 bits."""
    asked = question("from 0", cells=2, groups=1, rows=3)
    step = Fraction(15, reach)
    sums = tuple(
        Measure("sum", of=V, low=low, high=reach, step=step, where=where)
        for low, where in ((0, None), (-reach, B), (-reach, Call("<", (V, Constant(0)))))
    )
    asked = replace(asked, measures=sums)
    assert sorted_only(engine, monkeypatch, asked) == expected(asked)


def test_sums_that_could_be_too_large_go_by_sql(engine, monkeypatch):
    asked = question("from 0", rows=3)
    far = Measure("sum", of=V, low=0, high=1 << 52, step=Fraction(15, 1 << 52))
    with pytest.raises(pytest.fail.Exception, match="went by SQL"):
        sorted_only(engine, monkeypatch, replace(asked, measures=(far,)))


def test_floats_alone_would_round():
    values = np.array([(1 << 53) + 1, 1, -(1 << 55) - 3, 7], np.int64)
    cells = np.zeros(4, np.int64)
    wanted = sum(values.tolist())
    assert _sorting._summed(cells, values, 1).tolist() == [wanted]
    assert np.bincount(cells, values).astype(np.int64).tolist() != [wanted]


def test_nobody_at_all(engine, monkeypatch):
    asked = replace(question("from 0"), where=Call("<", (V, Constant(-99))))
    assert sorted_only(engine, monkeypatch, asked) == [*[[0] * 30] * 6, [[0] * 7] * 30, [[0] * 40] * 30]


@pytest.mark.parametrize(
    "values", [("it's", "", "[b]", "a,b"), ("\\", "ß", "SS", "a'),('b", "%", "ss", "z " * 99)]
)
def test_texts_of_any_kind_are_keys(engine, monkeypatch, values):
    asked = question("from 0")
    texts = np.random.default_rng(1).choice([*values, values[0] + " ", "other", None], 2000)
    place = asked.tables[0].place.append_column("s", pa.array(texts.tolist(), pa.string()))
    table = replace(asked.tables[0], place=place, columns=asked.tables[0].columns | {"s": "text"})
    asked = replace(asked, tables=(table,), keys=(Key("s", Column("s"), values), *asked.keys))
    wanted = expected(asked)
    assert sum(wanted[0]) > 0
    assert sorted_only(engine, monkeypatch, asked) == wanted


def test_arrays_hash_as_numbers_do():
    keys, random = keys_of(SALT), np.random.default_rng(1)
    units, cells = random.integers(-(1 << 63), 1 << 63, 500), random.integers(0, 1 << 31, 500)
    found = of_cell(of_unit(units, keys), cells, keys.cell)
    assert found.tolist() == [
        of_cell(of_unit(unit, keys), cell, keys.cell)
        for unit, cell in zip(units.tolist(), cells.tolist(), strict=True)
    ]
    assert 0 <= found.min() < found.max() < PRIME


@pytest.mark.parametrize("count", [0, 1, 2, 3000])
def test_places_of_values_that_share_bits(count):
    random = np.random.default_rng(count)
    # High bits alone differ in some, low bits alone in others.
    values = np.unique(
        np.concatenate([random.integers(0, 64, count) << 57, random.integers(0, 1 << 63, count)])
    )
    random.shuffle(values)
    places = Places(values)
    which = random.integers(0, max(len(values), 1), 100 if count else 0)
    np.testing.assert_array_equal(places.of(values[which]), which)
    with pytest.raises(UnknownValueError):
        places.of(np.array([(1 << 63) - 3]))


@pytest.mark.parametrize("how", ["inner", "left"])
@pytest.mark.parametrize("name", ["below 0", "text"])
def test_of_two_tables(engine, monkeypatch, name, how):
    asked = question(name, count=400)
    other = replace(asked.tables[0], alias="o", columns={"w": "integer"})
    with_w = other.place.slice(0, 150).append_column("w", pa.array(np.arange(150) % 9))
    place = pa.concat_tables(
        [
            with_w,
            with_w.set_column(
                0,
                "u",
                pc.add(with_w["u"], 1)
                if name != "text"
                else pc.binary_join_element_wise(with_w["u"], "x", ""),
            ),
        ]
    )
    other = replace(other, place=place)
    measures = (
        *(replace(one, of=one.of and Column("v", "t")) for one in MEASURES[:3]),
        Measure("sum", of=Column("w", "o"), low=0, high=8),
    )
    asked = replace(
        asked,
        where=None,
        tables=(*asked.tables, other),
        joins=(how,),
        measures=measures,
        keys=(replace(asked.keys[0], of=Column("h", "t")),),
    )
    assert sorted_only(engine, monkeypatch, asked) == expected(asked)


def test_two_texts_of_one_number_go_by_sql(engine, monkeypatch):
    asked = question("text")
    wanted = expected(asked)
    monkeypatch.setattr(
        "sfumato.queries.engines.duckdb._named", lambda text: f"CAST(hash({text}) % 290 AS BIGINT)"
    )
    with pytest.raises(pytest.fail.Exception, match="went by SQL"):
        sorted_only(engine, monkeypatch, asked)
    assert [values.tolist() for values in engine.bounded(asked).values] == wanted
