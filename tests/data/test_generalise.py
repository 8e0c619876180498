from __future__ import annotations

import math
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.dataset_policy import Rule
from sfumato.core.errors import InvalidRequest
from sfumato.data.generalise import generalise, generalised


@pytest.mark.parametrize(
    ("value", "rule", "result"),
    [
        ("1984-05-17", "month", "1984-05"),
        ("1984-05-17T10:20:30Z", "month", "1984-05"),
        ("1984-05", "year", "1984"),
        ("2015:08:01 12:30:00", "year", "2015"),
        (date(1984, 5, 17), "year", "1984"),
        (datetime(1984, 5, 17, 1), "month", "1984-05"),
        ("01234", "prefix 2", "01"),
        (10115, "prefix 3", "101"),
        ("AB1 2CD", "prefix 4", "AB1 "),
        (37, "band 10", "30-39"),
        (40, "band 10", "40-49"),
        (39.9, "band 10", "30-39"),
        (-1, "band 5", "-5--1"),
        ("37", "band 10", "30-39"),
        (52.5163, "grid 0.1", 52.5),
        (-13.377, "grid 0.05", -13.4),
        (1234, "round 100", 1200),
        (0.15, "round 0.1", 0.2),
        (None, "year", None),
    ],
)
def test_hand_computed(value, rule, result) -> None:
    assert generalise(value, Rule.parse(rule)) == result


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("17.05.1984", "year"),
        ("1984-02-31", "year"),
        ("1984-13", "month"),
        (1971, "year"),
        (True, "prefix 2"),
        (1.5, "prefix 2"),
        ("about 40", "band 10"),
        (math.nan, "round 1"),
        (math.inf, "grid 1"),
        ("1e400", "round 1"),
        ([1], "round 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_quoted(value, rule) -> None:
    with pytest.raises(InvalidRequest, match="1 different values of 'secret'") as error:
        generalised([value], Rule.parse(rule), "secret")
    assert str(value) not in str(error.value)


@given(st.integers(-(10**6), 10**6), st.integers(1, 1000))
def test_a_band_holds_its_number(value, width) -> None:
    label = generalise(value, Rule.parse(f"band {width}"))
    if width == 1:
        assert int(label) == value
        return
    low, high = (int(part) for part in _ends(label))
    assert low <= value <= high
    assert high - low + 1 == width
    assert low % width == 0


def _ends(label: str) -> tuple[str, str]:
    at = label.index("-", 1)
    return label[:at], label[at + 1 :]


@given(
    st.floats(-180, 180, allow_nan=False), st.sampled_from(("grid 0.1", "grid 0.25", "round 5", "band 10"))
)
def test_generalising_is_never_far_off_and_repeats(value, text) -> None:
    rule = Rule.parse(text)
    result = generalise(value, rule)
    assert generalise(value, rule) == result
    if rule.kind != "band":
        assert abs(result - value) <= float(rule.size) / 2 + 1e-9
        assert generalise(result, rule) == result


@pytest.mark.parametrize(
    "text",
    ["", "week", "band", "band x", "band 0", "band -3", "band 2.5", "prefix 1.5", "year 3", "grid nan", 5],
)
def test_a_bad_rule_says_what_a_rule_is(text) -> None:
    with pytest.raises(ValueError, match=r"rule is|needs a number|takes no number"):
        Rule.parse(text)


@pytest.mark.parametrize("text", ["month", "prefix 3", "grid 0.1"])
def test_a_rule_reads_back(text) -> None:
    assert str(Rule.parse(text)) == text


@pytest.mark.parametrize("value", [-0.04, "-0.04", -0.0, 0.0])
def test_both_sides_of_zero_are_one_cell(value: object) -> None:
    """A zero with a sign would tell on which side of it the value was."""
    assert repr(generalise(value, Rule.parse("grid 0.1"))) == "0.0"
