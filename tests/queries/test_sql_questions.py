"""Forty questions: thirty mean what is written beside them, and ten are refused for the right reason."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the questions are data that other tests read as well
import exact
import questions

from sfumato.core.errors import InvalidRequest
from sfumato.queries.sql import parse, render

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install 'sfumato[queries]'")


@pytest.fixture(scope="module")
def tables():
    return questions.tables()


def test_there_are_forty_and_ten_of_them_are_refused():
    assert (len(questions.ANSWERED), len(questions.REFUSED)) == (30, 10)


@pytest.mark.parametrize("asked", questions.ANSWERED, ids=lambda asked: " ".join(asked.sql.split())[:60])
def test_a_question_means_what_is_written_beside_it(asked):
    assert parse(asked.sql, questions.SHAPES) == asked.query


@pytest.mark.parametrize("asked", questions.ANSWERED, ids=lambda asked: " ".join(asked.sql.split())[:60])
def test_a_question_comes_back_from_its_own_text(asked):
    query = parse(asked.sql, questions.SHAPES)
    assert parse(render(query), questions.SHAPES) == query
    assert parse(render(query, questions.SHAPES), questions.SHAPES) == query


@pytest.mark.parametrize("asked", questions.REFUSED, ids=lambda asked: asked.sql[:60])
def test_a_question_is_refused_for_the_right_reason(asked):
    with pytest.raises(InvalidRequest) as refused:
        parse(asked.sql, questions.SHAPES)
    assert asked.refused in str(refused.value)


COMPARED = [asked for asked in questions.ANSWERED if asked.duckdb]


@pytest.mark.parametrize("asked", COMPARED, ids=lambda asked: " ".join(asked.sql.split())[:60])
def test_a_question_has_the_exact_answer_that_a_database_gives(asked, tables):
    """What is read means what was written: the oracle of the query against DuckDB on the text itself."""
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'sfumato[queries]'")
    query = parse(asked.sql, questions.SHAPES)
    with duckdb.connect() as database:
        for macro in questions.MACROS:
            database.execute(macro)
        for name, table in tables.items():
            database.register(name, table)
        limited = query.limit is not None and not query.order
        theirs = [_plain(row) for row in database.execute(asked.sql).fetchall()]
        ours = [_plain(row.values()) for row in exact.answer(query, tables, questions.UNITS)]
    assert len(theirs) > 0
    assert len(ours) == len(theirs)
    assert limited or sorted(ours) == sorted(theirs)


def _plain(row):
    """Return the values of a row as text, in no order: SELECT may name figures before keys."""
    return sorted(
        f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else _text(value) for value in row
    )


def _text(value):
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:.6g}"
    return str(value).removesuffix(" 00:00:00")
