"""One question to DuckDB, PostgreSQL, Spark and an oracle in plain Python: the same whole numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_of_queries import chosen, oracle
from tables_of_queries import WORDS, everything, others

from sfumato.core.errors import InvalidRequest, SfumatoError, UnknownName
from sfumato.queries.bounded import Bounded, Cells, Measure, TableRef
from sfumato.queries.engines import CATALOGUE, engine_for, engine_name
from sfumato.queries.model import Binned, Call, Column, Constant, Key, Part, Truncated

SALT = bytes(range(16))


def c(name: str, table: str = "") -> Column:
    return Column(name, table)


def call(op: str, *args) -> Call:
    return Call(
        op,
        tuple(
            arg if isinstance(arg, (Column, Constant, Call, Part, Truncated, Binned)) else Constant(arg)
            for arg in args
        ),
    )


HOUR = Key("hour", Part("hour", c("t")), tuple(range(24)))
WORD = Key(
    "word", call("upper", c("s")), tuple(dict.fromkeys(word.upper() for word in WORDS if word != "Straße"))
)
#: One measure of each kind, and expressions of each kind within.
MEASURES = (
    Measure("units"),
    Measure("rows"),
    Measure("rows", where=call("and", c("b"), call("not", call("like", c("s"), "%é%")))),
    Measure("units", of=c("x")),
    Measure("sum", of=c("x"), low=-30, high=1000, step=Fraction(1, 10)),
    Measure("squares", of=c("x"), low=-100, high=101, centred=True),
    Measure(
        "sum",
        of=call("*", c("x"), call("+", c("i"), c("x"))),
        low=-(10**15),
        high=10**15,
        step=Fraction(1, 10**11),
    ),
    Measure("sum", of=c("i"), low=-40, high=20, centred=True, where=call("in", c("s"), "a", "A", "é%")),
    Measure("sum", of=call("case", c("b"), c("i"), call(">", c("d"), "2000-01-01"), 1.5), low=-40, high=20),
    Measure("sum", of=call("coalesce", Part("week", c("d")), Part("yearday", c("t")), 7), low=0, high=400),
    Measure("sum", of=Part("weekday", c("d")), low=0, high=7),
    Measure("sum", of=call("abs", call("negative", call("clamp", c("i"), -9, 4))), low=0, high=9),
    Measure("sum", of=c("b"), low=0, high=1),
    Measure("units", where=call("=", Truncated("week", c("d")), Truncated("day", c("d")))),
    Measure(
        "rows", where=call("<=", Truncated("quarter", c("t")), call("coalesce", c("t"), datetime(2000, 1, 1)))
    ),
    Measure("bins", of=Binned(c("x"), Fraction(-1, 10), Fraction(1, 10), 15)),
    Measure("bins", of=Binned(c("i"), Fraction(0), Fraction(1), 15), where=c("b")),
)
WHERE = call("or", call("<", c("x"), 30.1), call("is null", c("x")), call(">=", c("s"), "Z"))


def question(table: TableRef, **changes) -> Bounded:
    parts = {"where": WHERE, "keys": (HOUR, WORD), "groups": 3, "rows": 2, "measures": MEASURES, "salt": SALT}
    return Bounded(tables=(table,), joins=(), **(parts | changes))


def questions(seed: int, *, text: bool) -> dict[str, Bounded]:
    table = everything(seed, text=text)
    private = (Key("s", c("s")), Key("hour", Part("hour", c("t"))), Key("b", c("b")))
    dates = (
        Key("month", Truncated("month", c("d"))),
        Key("hour", Truncated("hour", c("t"))),
        Key("i", c("i")),
    )
    odd = (
        Key("b", c("b"), (True, False)),
        Key(
            "year",
            Truncated("year", c("d")),
            (date(1, 1, 1), date(9999, 1, 1), datetime(2000, 1, 1), "2001-01-01"),
        ),
        Key("x", c("x"), (0.0, 1, 2.5, -1e9, -100, 100, 3.5)),
    )
    both = {"tables": (table, others(table, seed))}
    return {
        "bounded": question(table),
        "every cell": question(table, groups=1000, rows=1, measures=MEASURES[:7]),
        "one cell": question(table, keys=(), groups=1),
        "private keys": question(table, keys=private, private=True, measures=MEASURES[:7]),
        "private dates": question(table, keys=dates, private=True, measures=MEASURES[:2]),
        "odd keys": question(table, keys=odd, measures=MEASURES[:3]),
        "inner join": replace(
            question(table, measures=(*MEASURES[:2], Measure("sum", of=c("w", "o"), low=0, high=4))),
            joins=("inner",),
            **both,
        ),
        "left join": replace(
            question(
                table, groups=2, rows=1, measures=(Measure("rows"), Measure("sum", of=c("w"), low=0, high=4))
            ),
            joins=("left",),
            **both,
        ),
    }


def expected(asked: Bounded) -> Cells:
    return oracle(asked, *(table.place for table in asked.tables))


def same(found: Cells, wanted: Cells) -> None:
    assert len(found.values) == len(wanted.values)
    for place, (one, other) in enumerate(zip(found.values, wanted.values, strict=True)):
        assert one.dtype == np.int64
        np.testing.assert_array_equal(one, other, err_msg=f"measure {place}")
    assert (found.keys is None) == (wanted.keys is None)
    assert found.keys is None or found.keys.to_pylist() == wanted.keys.to_pylist()


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
@pytest.mark.parametrize("name", questions(0, text=False))
def test_duckdb_counts_as_the_oracle_does(duckdb, name, text):
    asked = questions(1, text=text)[name]
    wanted = expected(asked)
    assert any(values.any() for values in wanted.values)
    same(duckdb(asked), wanted)


@pytest.mark.parametrize("name", ["bounded", "private keys", "left join"])
def test_postgres_counts_as_the_oracle_does(in_postgres, name):
    asked = questions(2, text=name != "left join")[name]
    same(in_postgres(asked), expected(asked))


@pytest.mark.slow
@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
@pytest.mark.parametrize("name", questions(0, text=False))
def test_postgres_counts_so_in_every_question(in_postgres, name, text):
    asked = questions(3, text=text)[name]
    same(in_postgres(asked), expected(asked))


# PySpark leaves sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
@pytest.mark.parametrize("name", questions(0, text=False))
def test_spark_counts_as_the_oracle_does(in_spark, name, text):
    asked = questions(4, text=text)[name]
    same(in_spark(asked), expected(asked))


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    groups=st.integers(1, 30),
    rows=st.integers(1, 4),
    nulls=st.sampled_from([0.0, 0.3, 1.0]),
    text=st.booleans(),
)
def test_any_table_gives_what_the_oracle_gives(duckdb, seed, groups, rows, nulls, text):
    table = everything(seed, rows=60, units=6, text=text, nulls=nulls)
    asked = question(
        table, groups=groups, rows=rows, measures=(*MEASURES[:6], MEASURES[-1]), salt=seed.to_bytes(16, "big")
    )
    same(duckdb(asked), expected(asked))


def test_an_empty_table_has_every_cell(duckdb):
    table = everything(1)
    empty = replace(table, place=table.place.slice(0, 0))
    found = duckdb(question(empty))
    assert [values.shape[0] for values in found.values] == [24 * len(WORD.values)] * len(MEASURES)
    assert not any(values.any() for values in found.values)


def test_a_unit_counts_in_exactly_k_cells(duckdb):
    cells, units = 20, 300
    place = pa.table({"u": np.repeat(np.arange(units), cells), "h": np.tile(np.arange(cells), units)})
    table = TableRef("t", "u", place, {"h": "integer"}, {})
    keys = (Key("h", c("h"), tuple(range(cells))),)
    for groups in (1, 5, 19, 20, 21):
        asked = question(table, where=None, keys=keys, groups=groups, measures=(Measure("units"),))
        (found,) = duckdb(asked).values
        assert found.sum() == units * min(groups, cells)
    one = replace(asked, tables=(replace(table, place=place.slice(0, cells)),), groups=7)
    assert np.flatnonzero(duckdb(one).values[0]).tolist() == sorted(chosen(0, range(cells), 7, SALT))


def test_nobody_elses_rows_have_a_say_in_which_cells_count(duckdb):
    """Also with private keys, where cells have no numbers but by what occurs."""
    table = everything(5, text=True)
    units = table.place["u"].to_pylist()
    one = next(unit for unit in units if unit)
    mask = pa.array([unit == one for unit in units])
    alone, rest = table.place.filter(mask), table.place.filter(pa.array([unit != one for unit in units]))
    for keys, private in (
        ((HOUR, WORD), False),
        ((Key("s", c("s")), Key("t", Truncated("hour", c("t")))), True),
    ):
        asked = question(table, keys=keys, private=private, measures=(Measure("units"),), where=None)

        def counts(place: pa.Table, asked: Bounded = asked) -> dict:
            found = duckdb(replace(asked, tables=(replace(table, place=place),)))
            names = (
                range(len(found.values[0]))
                if found.keys is None
                else map(tuple, (r.values() for r in found.keys.to_pylist()))
            )
            return dict(zip(names, found.values[0].tolist(), strict=True))

        whole, others_, own = counts(table.place), counts(rest), counts(alone)
        added = {
            cell: count - others_.get(cell, 0)
            for cell, count in whole.items()
            if count != others_.get(cell, 0)
        }
        assert added == {cell: count for cell, count in own.items() if count}
        assert sum(own.values()) == 3


def test_sums_that_no_64_bits_hold_end_at_the_largest(duckdb):
    place = pa.table({"u": np.arange(40_000) % 40, "v": np.full(40_000, 10.0)})
    table = TableRef("t", "u", place, {"v": "number"}, {"v": (Fraction(-10), Fraction(10))})
    measure = Measure("sum", of=c("v"), low=-(10**15), high=10**15, step=Fraction(1, 10**14))
    asked = question(table, where=None, keys=(), groups=1, rows=1000, measures=(measure,))
    assert duckdb(asked).values[0].tolist() == [(1 << 63) - 1]
    negative = replace(measure, of=call("negative", c("v")))
    assert duckdb(replace(asked, measures=(negative,))).values[0].tolist() == [-(1 << 63) + 1]


def test_files_give_what_tables_give(duckdb, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    table = everything(6, text=True)
    asked = question(table, measures=MEASURES[:5], where=None)
    wanted = duckdb(asked)
    pyarrow.parquet.write_table(table.place, tmp_path / "it's a file.parquet")
    same(duckdb(replace(asked, tables=(replace(table, place=str(tmp_path / "*.parquet")),))), wanted)
    plain = replace(
        table,
        place=table.place.drop_columns(["d"]),
        columns={k: v for k, v in table.columns.items() if k != "d"},
    )
    asked = replace(
        asked, measures=(*MEASURES[:2], *MEASURES[3:6]), keys=(HOUR,)
    )  # empty text is none in CSV
    wanted = duckdb(replace(asked, tables=(plain,)))
    pyarrow.csv.write_csv(plain.place, tmp_path / "people.csv")
    same(
        duckdb(replace(asked, tables=(replace(plain, place=str(tmp_path / "people.csv")),))),
        wanted,
    )


def test_what_is_not_as_declared_is_missing_and_no_error(duckdb):
    place = pa.table(
        {
            "u": ["a", "b", "c"],
            "n": ["1", "x", "9" * 40],
            "d": ["2026-01-31", "", "31.1."],
            "z": [1.0, 2.5, 1e30],
        }
    )
    kinds = {"n": "integer", "d": "date", "z": "integer"}
    table = TableRef("t", "u", place, kinds, {"z": (Fraction(0), Fraction(9))})
    measures = (
        Measure("units", of=c("n")),
        Measure("units", of=c("d")),
        Measure("sum", of=c("z"), low=0, high=9),
    )
    found = duckdb(question(table, where=None, keys=(), groups=1, rows=1, measures=measures))
    assert [int(values[0]) for values in found.values] == [1, 1, 1]


REFUSED = {
    "could overflow: declare": {"measures": (Measure("sum", of=call("+", c("free"), 1), low=0, high=9),)},
    "could overflow: clamp": {
        "measures": (Measure("sum", of=call("*", call("*", c("i"), 1 << 40), 1 << 40), low=0, high=9),)
    },
    "could overflow: use": {"measures": (Measure("squares", of=c("i"), low=0, high=10**10),)},
    "at least 1 cell": {"groups": 0},
    "no column 'nothing'": {"where": call("is null", c("nothing"))},
    "true or false": {"where": c("i")},
    "cannot compare or mix": {"where": call("=", c("i"), "7")},
    "such as '2026-01-31'": {"where": call("=", c("d"), "Monday")},
    "no backslash": {"where": call("like", c("s"), "\\%")},
    "can never be": {"keys": (Key("hour", Part("hour", c("t")), ("morning",)),)},
    "twice": {"keys": (Key("hour", Part("hour", c("t")), (1, 1.0)),)},
    "no public values": {"keys": (Key("hour", Part("hour", c("t"))),)},
    "bin numbers": {"keys": (Key("x", c("x")),), "private": True, "measures": (Measure("units"),)},
    "too deep": {
        "where": call(
            ">",
            Binned(
                Binned(
                    Binned(Binned(c("x"), *[Fraction(1)] * 2, 9), *[Fraction(1)] * 2, 9),
                    *[Fraction(1)] * 2,
                    9,
                ),
                *[Fraction(1)] * 2,
                9,
            ),
            1,
        )
    },
    "a part of a date": {"where": call("=", Part("hour", c("s")), 1)},
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_before_a_row_is_read(duckdb, why):
    table = everything(1, rows=3)
    table = replace(
        table,
        columns=table.columns | {"free": "integer"},
        place=table.place.append_column("free", [[1, 2, 3]]),
    )
    with pytest.raises(InvalidRequest, match=why):
        duckdb(question(table, **REFUSED[why]))


def test_places_choose_the_engine(tmp_path):
    table = everything(1, rows=3)
    assert engine_name([table, replace(table, place="a.csv")]) == "duckdb"
    assert engine_name([replace(table, place="postgresql://host/db#t")]) == "postgres"
    assert engine_name([replace(table, place="spark:flow")]) == "spark"
    with pytest.raises(InvalidRequest, match="different engines"):
        engine_name([table, replace(table, place="spark:flow")])
    with pytest.raises(UnknownName, match="did you mean 'duckdb'"):
        engine_for([table], "duckbd")
    assert CATALOGUE.names == ("duckdb", "postgres", "spark")


def test_a_file_or_a_server_that_is_not_there_says_so(duckdb, tmp_path):
    table = replace(everything(1, rows=3), place=str(tmp_path / "none.parquet"))
    with pytest.raises(InvalidRequest, match="does not read"):
        duckdb(question(table))
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'sfumato[postgres]'")
    gone = replace(table, place="postgresql://me:secret@127.0.0.1:1/db#t")
    with pytest.raises(SfumatoError) as caught:
        engine_for([gone]).bounded(question(gone))
    assert "secret" not in str(caught.value)


def test_importing_the_room_loads_no_engine():
    code = (
        "import sys, sfumato.queries.engines as e\n[e.CATALOGUE.load(name) for name in e.CATALOGUE.names]\n"
        "print({'duckdb', 'ibis', 'sqlglot', 'pandas', 'pyspark', 'psycopg'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("repeats", [1, 2, 40], ids=["no row twice", "some rows twice", "most rows twice"])
@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_however_often_rows_repeat_the_same_cells_count(duckdb, repeats, text):
    """DuckDB goes one way where few rows repeat, and another where many do."""
    random = np.random.default_rng(repeats)
    rows, cells = 800, 240 // repeats
    units = random.integers(0, 100, rows)
    if repeats == 2:  # rare enough for the faster way, and yet there
        cells = 240
        units = np.concatenate([units, units[:15]])
    cell = random.integers(0, cells, rows)
    cell = np.concatenate([cell, cell[: len(units) - rows]])
    place = pa.table({"u": [f"p{unit}" for unit in units] if text else units, "h": cell})
    table = TableRef("t", "u", place, {"h": "integer", "u": "text" if text else "integer"}, {})
    for groups in (1, 2, 5):
        keys = (Key("h", c("h"), tuple(range(cells))),)
        asked = question(
            table, where=None, keys=keys, groups=groups, rows=1, measures=(Measure("units"), Measure("rows"))
        )
        same(duckdb(asked), expected(asked))
