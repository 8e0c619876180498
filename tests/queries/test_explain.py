"""What is explained of a question is what happens to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from crossing import crossing

from sfumato.core.errors import InvalidRequest
from sfumato.queries.api import Questions
from sfumato.queries.explain import Explanation, Stage

for _package in ("duckdb", "ibis", "pyarrow", "sqlglot"):
    pytest.importorskip(_package, reason=f"needs {_package}: pip install 'sfumato[queries]'")

BY_JUNCTION = "SELECT junction, COUNT(*) AS n, SUM(speed) AS s FROM flow WHERE hour < 9 GROUP BY junction"


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Questions]:
    project = crossing(tmp_path_factory.mktemp("explained"))
    yield project.questions()
    project.close()


def stage(explained: Explanation, name: str) -> Stage:
    (found,) = [one for one in explained.stages if one.name == name]
    return found


def test_the_steps_stand_in_order(questions: Questions) -> None:
    explained = questions.explain(BY_JUNCTION, epsilon=1)
    assert [one.name for one in explained.stages] == [
        "read",
        "rows",
        "groups",
        "one vehicle",
        "figures",
        "noise",
        "error",
        "finish",
        "cost",
    ]
    assert "hour < 9" in str(stage(explained, "rows").lines)
    assert max(len(line) for line in str(explained).splitlines()) <= 100
    assert json.loads(json.dumps(explained.to_data()))["stages"][0]["tables"] == ["flow@1"]


def test_widths_are_those_of_the_answer(questions: Questions) -> None:
    explained = questions.explain(BY_JUNCTION, epsilon=1)
    answer = questions.run(BY_JUNCTION, epsilon=1)
    for one in explained.expected:
        for row in answer:
            width = (row[f"{one.name}_high"] - row[f"{one.name}_low"]) / 2
            assert width == pytest.approx(one.half_width, rel=0.02), one.name
            assert width != pytest.approx(2 * (one.half_width or 0), rel=0.02)  # the check can fail


def test_sensitivities_are_told(questions: Questions) -> None:
    facts = stage(questions.explain(BY_JUNCTION, epsilon=1), "figures").facts["figures"]
    assert facts[0]["measures"] == [{"kind": "rows", "step": "1", "linf": 2, "l1": 8, "l2_squared": 16}]
    assert facts[1]["measures"][0]["linf"] * float(facts[1]["measures"][0]["step"]) == 260


def test_what_is_left_out_is_told_only_where_it_is_known(questions: Questions) -> None:
    all_of_them = questions.explain(BY_JUNCTION, epsilon=1, groups=4)
    assert stage(all_of_them, "one vehicle").facts["groups_left_out"] == "nothing"
    fewer = questions.explain(BY_JUNCTION, epsilon=1, groups=3)
    assert stage(fewer, "one vehicle").facts["groups_left_out"] == "not known"
    assert "chosen by chance" in str(fewer)


def test_the_curve_falls_and_goes_through_the_plan(questions: Questions) -> None:
    explained = questions.explain(BY_JUNCTION, epsilon="1/2")
    widths = [found["n"] for _, found in explained.curve]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) > 5
    (here,) = [found["n"] for epsilon, found in explained.curve if epsilon == explained.epsilon]
    assert here == explained.expected[0].half_width
    assert explained.to_svg().startswith("<svg")


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ("AVG(speed) AS x", "in a group of 10,000 rows"),
        ("STDDEV(speed) AS x", "depends on the data"),
        ("MEDIAN(speed) AS x", "how close the values lie"),
    ],
)
def test_figures_whose_error_depends_on_the_data(questions: Questions, figure: str, says: str) -> None:
    explained = questions.explain(f"SELECT {figure} FROM flow", epsilon=1)
    assert explained.expected[0].half_width is None
    assert says in explained.expected[0].says
    with pytest.raises(InvalidRequest, match="needs a count or a sum"):
        explained.to_svg()


def test_a_mean_is_at_least_as_exact_as_was_told(questions: Questions) -> None:
    question = "SELECT AVG(speed) AS x FROM flow"
    explained = questions.explain(question, epsilon=10)
    (row,) = questions.run(question, epsilon=10)
    assert (row["x_high"] - row["x_low"]) / 2 <= explained.expected[0].per_rows[1000] * 1.1


def test_totals_sorting_and_finishing_are_told(questions: Questions) -> None:
    question = (
        "SELECT junction, hour, COUNT(*) AS n FROM flow GROUP BY ROLLUP(junction, hour) "
        "HAVING COUNT(*) > 10 ORDER BY n DESC LIMIT 3"
    )
    said = str(questions.explain(question, epsilon=1, non_negative=True))
    for words in (
        "totals over the last keys",
        "become 0",
        "n > 10",
        "Sorted by n downwards",
        "first 3 groups",
    ):
        assert words in said, words


def test_groups_that_are_chosen_privately(tmp_path: Path) -> None:
    more = '\n[populations.drivers.shares.open]\nkind = "sum"\nepsilon = 50\ndelta = 1e-6\n'
    questions = crossing(tmp_path, more=more).questions()
    question = "SELECT district, COUNT(*) AS n FROM flow GROUP BY district"
    explained = questions.explain(question, epsilon=2, delta="1e-7", private_keys=True)
    facts = stage(explained, "groups").facts
    assert facts["private"]
    assert facts["threshold"] > 10
    assert stage(explained, "one vehicle").facts["groups_left_out"] == "not known"


def test_an_answer_that_was_given_costs_nothing(questions: Questions) -> None:
    question = "SELECT COUNT(*) AS n FROM flow WHERE hour = 5"
    before = questions.explain(question, epsilon=1)
    assert not stage(before, "cost").facts["answered_before"]
    questions.run(question, epsilon=1)
    after = questions.explain(question, epsilon=1)
    assert stage(after, "cost").facts["answered_before"]
    assert "answered before" in str(after)
    assert stage(after, "cost").facts["budget"]["questions"] == 0
