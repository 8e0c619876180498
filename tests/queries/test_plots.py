"""Pictures of answers: they are whole, show what is there, and no word of the data breaks them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries.answer import Answer
from sfumato.queries.plots import BARS, curve, draw
from sfumato.queries.svg import brief, mixed, ticks

SPACE = "{http://www.w3.org/2000/svg}"
Figures = list[float | None] | list[int | None]


def answer(keys: dict[str, list[Any]], figures: Figures, error: float = 5.0) -> Answer:
    ends = {
        "n": figures,
        "n_error": [None if one is None else error for one in figures],
        "n_low": [0 if one is None else type(one)(one - 2 * error) for one in figures],
        "n_high": [130 if one is None else type(one)(one + 2 * error) for one in figures],
    }
    return Answer(pa.table({**keys, **ends}), tuple(keys), ("n",))


def parts(picture: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(picture).iter(SPACE + tag))


def words(picture: str) -> list[str]:
    return [part.text or "" for part in parts(picture, "text")]


def test_counts_of_names_are_bars_from_nought() -> None:
    picture = draw(answer({"junction": ["A", "B", None]}, [100, -20, 80]))
    said = words(picture)
    assert {"A", "B", "100 (90 .. 110)", "-20 (-30 .. -10)", "n by junction, with 95 % intervals"} <= set(
        said
    )
    assert "80 (70 .. 90)" not in said, "a total is no group"
    _, long, short = parts(picture, "rect")
    assert float(long.get("width", 0)) > 4 * float(short.get("width", 0))


def test_figures_that_count_nothing_are_dots() -> None:
    picture = draw(answer({"junction": ["A", "B"]}, [50.5, None]))
    assert len(parts(picture, "circle")) == 1
    assert any("too few to tell" in word for word in words(picture))


def test_hours_and_days_are_a_line_that_breaks_where_something_is_missing() -> None:
    days = [date(2026, 1, 1) + timedelta(days=day) for day in range(9)]
    whole = draw(answer({"day": days}, [float(day) for day in range(9)]))
    broken = draw(answer({"day": days}, [1.0, 2.0, 3.0, None, 4.0, 5.0, None, 6.0, 7.0]))
    assert len(parts(whole, "path")) == 2
    assert len(parts(broken, "path")) == 6
    assert "2026-01-01" in words(whole)


def test_two_keys_are_lines_or_a_map() -> None:
    hours = list(range(24))
    few = draw(answer({"junction": [j for j in "ABC" for _ in hours], "hour": hours * 3}, list(range(72))))
    many = draw(
        answer({"junction": [j for j in "ABCDEFGHIJ" for _ in hours], "hour": hours * 10}, list(range(240)))
    )
    assert len(parts(few, "path")) == 6
    assert {"A", "B", "C"} <= set(words(few))
    assert len(parts(many, "rect")) > 240
    assert "a dot: may be 0" in " ".join(words(many))


def test_a_map_marks_what_is_missing() -> None:
    picture = draw(answer({"a": ["x", "x", "y", "y"], "b": ["p", "q"] * 2}, [50.0, None, 60.0, 70.0]))
    assert any("struck out" in word for word in words(picture))


def test_the_wide_and_the_many_are_cut_and_say_so() -> None:
    names = [f"street {at} " + "x" * 50 for at in range(100)]
    said = words(draw(answer({"street": names}, list(range(100)))))
    assert f"n by street, with 95 % intervals; {BARS} of 100 rows" in said
    assert all(len(word) < 60 for word in said)


def test_an_answer_without_keys_is_one_bar() -> None:
    assert "1,234 (1,224 .. 1,244)" in words(draw(answer({}, [1234])))


@pytest.mark.parametrize("figures", [[0, 0, 0], [0.0, 0.0, 0.0], [None, None, None], [5.0, 5.0, 5.0]])
@pytest.mark.parametrize("key", [["a", "b", "c"], [1, 2, 3], [True, False, True]])
def test_level_and_missing_figures_are_drawn_too(figures: Figures, key: list[Any]) -> None:
    for error in (0.0, 5.0):
        one = draw(answer({"k": key}, figures, error))
        two = draw(answer({"k": key, "l": ["p", "q", "r"]}, figures, error))
        assert "nan" not in one + two
        assert "inf" not in one + two


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    figures=st.data(),
)
def test_any_words_and_numbers_make_a_whole_picture(names: list[str], figures: st.DataObject) -> None:
    numbers = st.integers(-(10**15), 10**15)
    values = [figures.draw(numbers) for _ in names]
    for keys in ({"k": names}, {"k": names, "<l>&": list(range(len(names)))}):
        picture = draw(answer(keys, values, figures.draw(st.floats(0, 1e6))))
        ElementTree.fromstring(picture)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UnknownName, match="figure of this answer 'm'"):
        draw(answer({}, [1]), "m")
    with pytest.raises(InvalidRequest, match="has 3"):
        draw(answer({"a": [1], "b": [1], "c": [1]}, [1]))
    with pytest.raises(InvalidRequest, match="no row to draw"):
        draw(answer({"a": pa.array([], pa.string())}, []))  # type: ignore[dict-item]


# The curve of errors


def test_a_curve_shows_the_error_at_the_planned_epsilon() -> None:
    line = [(0.1, 300.0), (1.0, 30.0), (10.0, 3.0)]
    picture = curve([("n", line), ("<m>", [(x, y / 7) for x, y in line])], at=1.0)
    assert {"n ± 30", "<m> ± 4.29", "planned: 1", "epsilon"} <= set(words(picture))
    assert len(parts(picture, "path")) == 2
    assert curve([("n", line)]).count("<circle") == 0


@pytest.mark.parametrize("lines", [[], [("n", [])], [("n", [(0.0, 1.0)])], [("n", [(1.0, float("inf"))])]])
def test_a_curve_of_nothing_is_refused(lines: Any) -> None:
    with pytest.raises(InvalidRequest, match="above 0"):
        curve(lines)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-9, 1e12)), min_size=1, max_size=5),
    st.floats(1e-6, 1e3),
)
def test_any_curve_is_a_whole_picture(points: list[tuple[float, float]], at: float) -> None:
    picture = curve([("n", sorted(points))], at)
    ElementTree.fromstring(picture)
    assert "nan" not in picture


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_few_round_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 6
    if low + span > low and span > abs(low) * 1e-9:
        assert found
        assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_ticks_and_colours_are_told_briefly() -> None:
    assert [brief(one) for one in (0.05, 2.5, 1500.0, 2e9)] == ["0.05", "2.5", "1,500", "2G"]
    assert (mixed("#000000", "#ffffff", 0.5), mixed("#000000", "#ffffff", 9)) == ("#808080", "#ffffff")
