"""Answers: kept exactly, read by people and by other programs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.queries.answer import Answer, Cost, columns
from sfumato.queries.tabular import number

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): TEXTS,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    pa.timestamp("us", "UTC"): st.datetimes(
        datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)
    ),
}


def small(**changes: Any) -> Answer:
    table = pa.table(
        {
            "junction": ["A", "<b>", None],
            "n": [1200, -3, 1197],
            "n_error": [9.5, 9.5, 9.5],
            "n_low": [1180, -23, 1177],
            "n_high": [1220, 17, 1217],
            "speed": [48.25, None, 40.0],
            "speed_error": [0.31, None, 0.2],
            "speed_low": [47.6, 0.0, 39.6],
            "speed_high": [48.9, 130.0, 40.4],
        }
    )
    answer = Answer(
        table,
        ("junction",),
        ("n", "speed"),
        notes=("speed: of values clamped to 0..130",),
        cost=Cost(Fraction(1, 3), Fraction(1, 10**6), Fraction(1, 700), "drivers", "traffic"),
        guarantee="(1/3, 1e-6)-differentially private",
        receipt="000000000002-abc.json",
    )
    return replace(answer, **changes)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), max_size=3))
    rows = draw(st.integers(0, 4))
    keys = {
        f"k{at}": pa.array(draw(st.lists(st.none() | KINDS[kind], min_size=rows, max_size=rows)), kind)
        for at, kind in enumerate(kinds)
    }
    whole = draw(st.booleans())
    kind = pa.int64() if whole else pa.float64()
    ends = {
        name: pa.array(draw(st.lists(st.none() | KINDS[one], min_size=rows, max_size=rows)), one)
        for name, one in (("x", kind), ("x_error", pa.float64()), ("x_low", kind), ("x_high", kind))
    }
    cost = Cost(
        draw(st.fractions(0, 9)), draw(st.fractions(0, 1)), draw(st.fractions(0, 1)), draw(TEXTS), draw(TEXTS)
    )
    return Answer(
        pa.table({**keys, **ends}),
        tuple(keys),
        ("x",),
        tuple(draw(st.lists(TEXTS, max_size=2))),
        cost,
        draw(TEXTS),
        draw(TEXTS),
        draw(st.booleans()),
    )


@settings(max_examples=80, deadline=None)
@given(answers())
def test_an_answer_comes_back_exactly(answer: Answer) -> None:
    for back in (
        Answer.from_json(answer.to_json()),
        Answer.from_data(json.loads(json.dumps(answer.to_data()))),
    ):
        assert back == answer
        assert back.table.schema == answer.table.schema
        # Equality of tables takes -0.0 for 0.0.
        assert back.to_json() == answer.to_json()


@settings(max_examples=50, deadline=None)
@given(answers())
def test_every_answer_can_be_printed(answer: Answer) -> None:
    assert str(answer)
    assert answer._repr_html_().startswith("<table>")


def test_rows_are_objects_that_other_programs_read() -> None:
    data = json.loads(small().to_json())
    assert data["rows"][1] == {
        "junction": "<b>",
        "n": -3,
        "n_error": 9.5,
        "n_low": -23,
        "n_high": 17,
        "speed": None,
        "speed_error": None,
        "speed_low": 0.0,
        "speed_high": 130.0,
    }
    assert data["cost"]["epsilon"] == "1/3"


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"format": "sfumato-answer/2"}',
        small().to_json().replace('"int64"', '"list<int64>"'),
        small().to_json().replace('"1/3"', '"a third"'),
        small().to_json().replace('"n_low"', '"n_lower"'),
        "[" * 5000,
    ],
)
def test_what_is_no_answer_is_refused(document: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no stored answer|has the columns"):
        Answer.from_json(document)


def test_other_tables_hold_the_same() -> None:
    polars = pytest.importorskip("polars", reason="needs polars: pip install polars")
    pytest.importorskip("pandas", reason="needs pandas: pip install pandas")
    answer = small()
    assert answer.to_arrow() is answer.table
    assert list(answer.to_pandas()["n"]) == [1200, -3, 1197]
    assert answer.to_pandas()["speed"].isna().tolist() == [False, True, False]
    assert isinstance(answer.to_polars(), polars.DataFrame)
    assert answer.to_polars()["speed"].null_count() == 1
    assert len(answer) == 3
    assert [row["n"] for row in answer] == [1200, -3, 1197]


def test_csv_has_a_header_and_empty_fields_for_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    small().to_csv(path)
    lines = path.read_text().splitlines()
    assert lines[0].replace('"', "").split(",")[:3] == ["junction", "n", "n_error"]
    assert lines[2].endswith(",,,0,130")
    assert lines[3].startswith(",1197")


def test_people_see_figures_with_their_intervals() -> None:
    assert str(small()).splitlines() == [
        "junction      n   95 % interval  speed   95 % interval",
        "A         1,200  1,180 .. 1,220  48.25  47.60 .. 48.90",
        "<b>          -3       -23 .. 17      –  0.000 .. 130.0",
        "total     1,197  1,177 .. 1,217  40.00  39.60 .. 40.40",
        "epsilon 1/3, delta 1e-06 of traffic; receipt 000000000002-abc.json",
        "note: speed: of values clamped to 0..130",
    ]
    assert "replayed at no cost; first answered for epsilon 1/3" in str(small(replayed=True))


def test_a_notebook_gets_markup_that_data_cannot_break() -> None:
    page = small(receipt="<script>")._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script>" not in page
    assert "total" in page


def test_a_long_answer_shows_its_ends() -> None:
    count = 1000
    ones = list(range(count))
    table = pa.table({"k": ones, "n": ones, "n_error": [1.0] * count, "n_low": ones, "n_high": ones})
    answer = Answer(table, ("k",), ("n",))
    assert "... 980 more ..." in str(answer)
    assert len(str(answer).splitlines()) == 23
    assert "980 more" in answer._repr_html_()


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (1234567, 12.0, "1,234,567"),
        (0.000123, 0.00001, "0.000123"),
        (123456.789, 1000.0, "123,457"),
        (-0.0001, 1.0, "0.0"),
        (None, None, "–"),
        (float("nan"), None, "–"),
        (1e300, 1e299, f"{1e300:,.0f}"),
        (12.5, 0.0, "12.50"),
    ],
)
def test_numbers_have_the_digits_that_their_error_leaves(value: Any, error: float | None, said: str) -> None:
    assert number(value, error) == said


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="called 'n_low'"):
        columns(("hour",), ("n", "n_low"))
    with pytest.raises(InvalidRequest, match="called 'n'"):
        columns(("n",), ("n",))


def test_a_table_of_other_columns_is_no_answer() -> None:
    with pytest.raises(InvalidRequest, match="has the columns n, n_error"):
        Answer(pa.table({"n": [1]}), (), ("n",))


def test_dates_are_read_back_as_dates() -> None:
    table = pa.table({"day": [date(2026, 11, 28)], "n": [1], "n_error": [1.0], "n_low": [0], "n_high": [2]})
    assert next(iter(Answer.from_json(Answer(table, ("day",), ("n",)).to_json())))["day"] == date(
        2026, 11, 28
    )
