"""What an expression can be, from what its parts can be: nothing is left out, and nothing is too much."""

import random
import sys
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import exact
import question_tables
import questions
from test_canonical import Random

from sfumato.queries.model import Binned, Call, Column, Constant, Part, walk
from sfumato.queries.outcomes import outcomes
from sfumato.queries.sql import parse

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install 'sfumato[queries]'")

HOURS = tuple(range(24))
PUBLIC = {
    "hour": HOURS,
    "junction": question_tables.JUNCTIONS,
    "kind": question_tables.VEHICLES,
    "toll": (False, True),
}


def _values(part):
    match part:
        case Column(name=name):
            return PUBLIC.get(name)
        case Binned(count=count):
            return range(count)
        case Part(part="weekday"):
            return range(1, 8)
    return None


def _key(sql):
    return parse(f"SELECT {sql} AS key, COUNT(*) FROM flow GROUP BY 1", questions.SHAPES).keys[0].of


def test_bins_in_their_own_unit_are_known():
    assert outcomes(_key("FLOOR(speed / 10) * 10"), _values) == tuple(range(0, 140, 10))
    assert outcomes(_key("FLOOR(speed / 0.5) * 0.5"), _values)[:3] == (0, 0.5, 1)


def test_days_that_count_from_sunday_are_seven():
    assert outcomes(_key("DAYOFWEEK(passed)"), _values) == tuple(range(7))


def test_choices_are_known_by_what_they_choose_from():
    assert outcomes(_key("CASE WHEN hour < 12 THEN 'am' ELSE 'pm' END"), _values) == ("am", "pm")
    assert outcomes(_key("CASE WHEN hour > 99 THEN 'never' ELSE UPPER(kind) END"), _values) == (
        "BICYCLE",
        "BUS",
        "CAR",
        "TRUCK",
    )
    assert outcomes(_key("hour < 12 AND toll"), _values) == (False, True)


def test_what_no_policy_knows_stays_unknown():
    assert outcomes(_key("speed * 2"), _values) is None
    assert outcomes(_key("hour + FLOOR(speed / 0.1)"), _values) is None, "too many to try"


def test_fractions_that_engines_round_differently_are_not_promised():
    assert outcomes(_key("FLOOR(speed / 10) * 0.1"), _values) is None


def test_nothing_that_a_row_can_be_is_left_out():
    tried = 0
    for seed in range(300):
        made = Random(seed).of(random.Random(seed).choice(["boolean", "integer", "text"]))
        parts = [each for each in walk(made) if not isinstance(each, Call | Constant)]
        if not isinstance(made, Call) or any(
            _values(each) is None for each in parts if isinstance(each, Column)
        ):
            continue
        if any(not isinstance(each, Column) for each in parts):
            continue
        found = outcomes(made, _values)
        if found is None:
            continue
        tried += 1
        chance = random.Random(seed)
        for _ in range(50):
            row = {("", name): chance.choice([*values, None]) for name, values in PUBLIC.items()}
            value = exact.value(made, row)
            assert value is None or value in found
        assert len(set(found)) == len(found)
    assert tried > 60


def test_a_twin_that_forgets_what_is_missing_is_caught():
    """COALESCE gives a value that no part has: only missing parts show it."""
    of = Call("coalesce", (Column("kind"), Constant("none")))
    assert outcomes(of, _values) == ("bicycle", "bus", "car", "truck", "none")


def test_patterns_match_as_in_sql():
    for pattern, text, found in [
        ("%", "", True),
        ("a%", "abc", True),
        ("%c", "abc", True),
        ("_b_", "abc", True),
        ("a%%%c", "abc", True),
        ("a_", "abc", False),
        ("", "", True),
        ("", "a", False),
        ("%a%b%" * 30, "ab" * 200, True),
    ]:
        assert outcomes(Call("like", (Constant(text), Constant(pattern))), _values) == (found,)


def test_numbers_are_exact():
    of = Call("*", (Column("hour"), Constant(0.25)))
    assert outcomes(of, _values) == tuple(float(Fraction(each, 4)) for each in HOURS)
