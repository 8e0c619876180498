"""k, l and t against hand-computed tables and against a slow oracle that shares no code."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data.disclosure import disclosure

#: The inpatient example of Machanavajjhala et al. 2007, generalised: 3 groups of 4.
WARD = pa.table(
    {
        "who": [f"p{i}" for i in range(12)],
        "zip": ["130**"] * 4 + ["1485*"] * 4 + ["130**"] * 4,
        "age": ["<30"] * 4 + [">=40"] * 4 + ["3*"] * 4,
        "ill": [
            "heart",
            "heart",
            "viral",
            "viral",
            "cancer",
            "heart",
            "viral",
            "viral",
            "cancer",
            "cancer",
            "cancer",
            "cancer",
        ],
    }
)


def test_the_published_example() -> None:
    result = disclosure(WARD, ["zip", "age"], ["ill"], "who")
    assert (result.k, result.groups, result.alone) == (4, 3, 0)
    assert result.l == {"ill": 1}  # everybody in their thirties has cancer
    # cancer 5/12, heart 3/12, viral 4/12 of all; in the third group all have cancer: (7 + 3 + 4) / 12 / 2
    assert result.t["ill"] == pytest.approx(7 / 12)


def test_the_salaries_of_li_et_al() -> None:
    """P1 = {3k, 4k, 5k} of {3k .. 11k}: the ordered distance is 0.375, as published."""
    table = pa.table(
        {"who": [str(i) for i in range(9)], "group": ["a"] * 3 + ["b"] * 6, "pay": list(range(3, 12))}
    )
    assert disclosure(table, ["group"], ["pay"], "who").t["pay"] == pytest.approx(0.375)


def test_people_are_counted_and_not_rows() -> None:
    table = pa.table({"who": ["a"] * 5 + ["b"], "age": [1] * 5 + [2]})
    assert disclosure(table, ["age"], [], "who").k == 1


def test_missing_values_are_values() -> None:
    table = pa.table({"who": list("abcd"), "age": [None, None, 1, 1], "pay": [None, 1.5, 2.5, 2.5]})
    result = disclosure(table, ["age"], ["pay"], "who")
    assert (result.k, result.l["pay"]) == (2, 1)


def test_an_empty_table() -> None:
    assert disclosure(WARD.slice(0, 0), ["zip"], ["ill"], "who").k == 0


def test_it_is_never_called_anonymous() -> None:
    data = disclosure(WARD, ["zip"], ["ill"], "who").to_data()
    assert data["guarantee"] == "tested"
    assert "anonym" not in str(data)


def oracle(rows, ordered: bool):
    """The definitions, word by word: exact fractions, one group at a time."""
    groups, people = defaultdict(list), defaultdict(set)
    for who, a, b, value in rows:
        groups[a, b].append(value)
        people[a, b].add(who)
    k = min(len(names) for names in people.values())
    l_value = min(len(set(values)) for values in groups.values())
    everybody = Counter(value for *_, value in rows)
    domain = sorted(everybody, key=lambda value: (value is None, value))
    worst = Fraction(0)
    for values in groups.values():
        mine = Counter(values)
        gaps = [
            Fraction(mine[value], len(values)) - Fraction(everybody[value], len(rows)) for value in domain
        ]
        if ordered:
            moved, total = Fraction(0), Fraction(0)
            for gap in gaps:
                moved += gap
                total += abs(moved)
            distance = total / (len(domain) - 1) if len(domain) > 1 else Fraction(0)
        else:
            distance = sum(abs(gap) for gap in gaps) / 2
        worst = max(worst, distance)
    return k, l_value, worst


people = st.sampled_from("abcdefg")
quasi = st.sampled_from(("x", "y", None))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(people, quasi, st.integers(0, 2), st.integers(-5, 5)), min_size=1, max_size=40))
def test_numbers_agree_with_the_oracle(rows) -> None:
    _agree(rows, pa.int64(), ordered=True)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(people, quasi, st.integers(0, 2), st.sampled_from(("u", "v", "w", None))),
        min_size=1,
        max_size=40,
    )
)
def test_words_agree_with_the_oracle(rows) -> None:
    _agree(rows, pa.string(), ordered=False)


def _agree(rows, kind: pa.DataType, *, ordered: bool) -> None:
    who, a, b, value = zip(*rows, strict=True)
    table = pa.table(
        {
            "who": who,
            "a": pa.array(a, pa.string()),
            "b": pa.array(b, pa.int64()),
            "value": pa.array(value, kind),
        }
    )
    result = disclosure(table, ["a", "b"], ["value"], "who")
    k, l_value, t = oracle(rows, ordered)
    assert (result.k, result.l["value"]) == (k, l_value)
    assert result.t["value"] == pytest.approx(float(t), abs=1e-8)


def test_the_oracle_sees_a_wrong_distance() -> None:
    """The two distances differ where order matters: the check cannot pass by chance for both."""
    rows = [("a", "x", 0, 0), ("b", "x", 0, 1), ("c", "y", 0, 9)]
    assert oracle(rows, True)[2] != oracle(rows, False)[2]
