"""`sfumato query`: answers, prices, refusals and files, on a real project."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from crossing import JUNCTIONS, PASSED, crossing

from sfumato.cli.main import main
from sfumato.core.project import Project

for _package in ("duckdb", "ibis", "pyarrow", "sqlglot"):
    pytest.importorskip(_package, reason=f"needs {_package}: pip install 'sfumato[queries]'")

BY_JUNCTION = "SELECT junction, COUNT(*) AS n FROM flow GROUP BY junction"


def run(*arguments: str) -> int:
    """Run in this process; return the exit code."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return crossing(tmp_path)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project for all questions that are refused: none of them leaves a mark."""
    return crossing(tmp_path_factory.mktemp("refusing"))


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run with --json and return the object."""
    assert run("query", *arguments, "--json") == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def charges(project: Project) -> int:
    book = project.book()
    try:
        return sum(row.kind == "reserve" for row in book.entries())
    finally:
        book.close()


# Answers


def test_an_answer_is_a_table_with_its_doubt_its_cost_and_what_is_left(project: Project, capsys) -> None:
    assert run("query", BY_JUNCTION, "--epsilon", "50") == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    for name, count in zip(JUNCTIONS, PASSED, strict=True):
        value, sign, width = lines[name]
        assert abs(int(value) - count) <= 5
        assert sign == "+-"
        assert int(width) <= 2
    assert "Cost: epsilon 50. drivers/all: epsilon 50 of 100 left." in out
    receipt = next(line for line in out.splitlines() if line.startswith("Receipt: ")).partition(" ")[2]
    assert (project.root / receipt).is_file()


def test_the_same_question_again_is_free(project: Project, capsys) -> None:
    first = asked(capsys, BY_JUNCTION, "--epsilon", "1")
    again = asked(capsys, "select junction, count(*) as n from flow group by 1", "--epsilon", "1")
    assert [one["replayed"] for one in (*first["answers"], *again["answers"])] == [False, True]
    assert again["answers"][0]["rows"] == first["answers"][0]["rows"]
    assert again["answers"][0]["budget"] == {"account": "drivers/all", "left": "99", "of": "100"}
    assert run("query", BY_JUNCTION, "--epsilon", "1") == 0
    assert "Answered before (epsilon 1): free." in capsys.readouterr().out
    assert charges(project) == 1


def test_json_holds_everything(project: Project, capsys) -> None:
    data = asked(capsys, BY_JUNCTION, "--epsilon", "1/3")
    assert (data["status"], data["exit_code"]) == ("done", 0)
    (answer,) = data["answers"]
    assert answer["question"] == BY_JUNCTION
    assert (answer["keys"], answer["figures"]) == (["junction"], ["n"])
    assert [row["junction"] for row in answer["rows"]] == list(JUNCTIONS)
    assert set(answer["rows"][0]) == {"junction", "n", "n_error", "n_low", "n_high"}
    assert answer["cost"]["epsilon"] == "1/3"
    assert "differentially private for one vehicle" in answer["guarantee"]
    assert (project.root / ".sfumato" / "receipts" / answer["receipt"]).is_file()


def test_csv_and_picture(project: Project, capsys) -> None:
    assert run("query", BY_JUNCTION, "--epsilon", "1", "--csv", "n.csv", "--plot", "n.svg") == 0
    rows = list(csv.DictReader(io.StringIO(Path("n.csv").read_text())))
    assert [row["junction"] for row in rows] == list(JUNCTIONS)
    assert list(rows[0]) == ["junction", "n", "n_error", "n_low", "n_high"]
    picture = ElementTree.fromstring(Path("n.svg").read_text())
    words = "".join(picture.itertext())
    assert picture.tag.endswith("svg")
    assert all(name in words for name in JUNCTIONS)


def test_a_target_error_finds_its_price(project: Project, capsys) -> None:
    (answer,) = asked(capsys, BY_JUNCTION, "--target-error", "20")["answers"]
    assert {row["n_high"] - row["n_low"] for row in answer["rows"]} <= set(range(39, 42))


def test_options_become_terms(project: Project, capsys) -> None:
    question = "SELECT junction, COUNT(*) AS n FROM flow WHERE hour = 3 GROUP BY junction"
    options = (
        "--epsilon",
        "0.05",
        "--groups",
        "1",
        "--rows",
        "1",
        "--mechanism",
        "gaussian",
        "--delta",
        "1e-6",
    )
    (answer,) = asked(capsys, question, *options, "--non-negative", "--no-integers")["answers"]
    assert all(row["n"] >= 0 for row in answer["rows"])
    assert any("0" in note for note in answer["notes"])
    assert "at most 1 group" in answer["guarantee"]
    assert "Gaussian" in answer["guarantee"]


@pytest.mark.slow
def test_pictures_show_in_a_browser(project: Project, tmp_path: Path) -> None:
    """Both pictures are drawn, inside their own frame: there is ink within it and none at its edges."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    import numpy as np
    from PIL import Image

    assert run("query", BY_JUNCTION, "--epsilon", "1", "--explain", "--plot", "price.svg") == 0
    assert run("query", BY_JUNCTION, "--epsilon", "1", "--plot", "n.svg") == 0
    for name in ("price", "n"):
        page = tmp_path / f"{name}.html"
        drawing = Path(f"{name}.svg").read_text()
        page.write_text(f"<body style='margin:0'>{drawing.replace('<svg', '<svg width=720 ', 1)}")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=720,600"]
        command = [browser, *flags, f"--screenshot={tmp_path / name}.png", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        shown = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert (shown < 200).mean() > 0.005, name
        assert (shown[:, :2] > 200).all(), name
        assert (shown[:, -2:] > 200).all(), name


def test_a_dataset_of_the_catalogue_is_asked_by_its_name(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    more = """
[datasets.visits]
keep = ["ward", "stay"]
unit = "vehicle"
population = "drivers"
purposes = ["traffic-planning"]
max_groups = 2
max_rows = 3

[datasets.visits.columns.ward]
values = ["north", "south"]

[datasets.visits.columns.stay]
kind = "integer"
bounds = [0, 10]
"""
    crossing(tmp_path, more=more)
    lines = [f"{one},{('north', 'south')[one % 2]},{one % 5},Ann" for one in range(100)]
    Path("visits.csv").write_text("\n".join(["vehicle,ward,stay,name", *lines]))
    assert run("data", "add", "visits", "visits.csv") == 0
    capsys.readouterr()
    question = "SELECT ward, COUNT(DISTINCT vehicle) AS n, SUM(stay) AS s FROM visits@1 GROUP BY ward"
    (answer,) = asked(capsys, question, "--epsilon", "50")["answers"]
    assert [(row["ward"], abs(row["n"] - 50) <= 2) for row in answer["rows"]] == [
        ("north", True),
        ("south", True),
    ]
    assert all(abs(row["s"] - 100) <= 30 for row in answer["rows"])
    assert run("query", "SELECT name, COUNT(*) FROM visits GROUP BY 1", "--epsilon", "1") == 2


# Several questions

SCRIPT = """-- how many vehicles; and where
SELECT COUNT(*) AS n FROM flow WHERE junction <> 'a;b';
SELECT junction, COUNT(*) AS n FROM flow GROUP BY junction; -- the end
"""


def test_questions_in_a_file_are_answered_in_order(project: Project, capsys) -> None:
    Path("monday.sql").write_text(SCRIPT)
    data = asked(capsys, "-f", "monday.sql", "--epsilon", "1")
    assert [len(one["rows"]) for one in data["answers"]] == [1, 4]
    assert data["answers"][1]["budget"]["left"] == "98"


def test_a_script_comes_from_standard_input_too(project: Project, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(SCRIPT))
    assert run("query", "-f", "-", "--epsilon", "1") == 0
    out = capsys.readouterr().out
    assert out.count("Cost: epsilon 1.") == 2
    assert out.index("WHERE junction") < out.index("GROUP BY junction")


def test_several_that_do_not_fit_are_refused_as_a_whole(project: Project, capsys) -> None:
    several = ["SELECT COUNT(*) FROM flow", BY_JUNCTION, "SELECT hour, COUNT(*) FROM flow GROUP BY 1"]
    assert run("query", *several, "--epsilon", "45") == 4
    out, error = capsys.readouterr()
    assert out == ""
    assert "no room for these 3 questions together" in error
    assert "Missing: epsilon 35. The first 2 would fit" in error
    assert charges(project) == 0


def test_what_is_answered_or_asked_twice_is_not_priced_again(project: Project, capsys) -> None:
    asked(capsys, BY_JUNCTION, "--epsilon", "45")
    same = "SELECT COUNT(*) AS n FROM flow"
    data = asked(capsys, BY_JUNCTION, same, same, "--epsilon", "45")
    assert [one["replayed"] for one in data["answers"]] == [True, False, True]


# Explaining


def test_explain_says_all_and_charges_nothing(project: Project, capsys) -> None:
    assert run("query", BY_JUNCTION, "SELECT AVG(speed) AS v FROM flow", "--epsilon", "60", "--explain") == 0
    out = capsys.readouterr().out
    steps = ["read", "rows", "groups", "one vehicle", "figures", "noise", "error", "finish", "cost"]
    places = [out.index(f"{number}. {name}") for number, name in enumerate(steps, 1)]
    assert places == sorted(places)
    assert "epsilon 100 of 100 left now, and 40 afterwards" in out
    assert "Together: the budget of drivers/all has no room for these 2 questions" in out
    assert charges(project) == 0


def test_explain_as_data_and_as_a_picture(project: Project, capsys) -> None:
    data = asked(capsys, BY_JUNCTION, "--epsilon", "0.5", "--explain", "--plot", "price.svg")
    (one,) = data["questions"]
    assert [stage["stage"] for stage in one["stages"]][:2] == ["read", "rows"]
    assert one["expected"][0]["half_width"] > 1
    assert data["together"]["left_after"] == "99.5"
    assert "epsilon" in "".join(ElementTree.fromstring(Path("price.svg").read_text()).itertext())
    assert charges(project) == 0


# Refusals


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["SELECT MAX(speed) FROM flow", "--epsilon", "1"], "one person's value"),
        (["SELECT * FROM flow", "--epsilon", "1"], "line 1"),
        (["SELECT COUNT(*) FROM flwo", "--epsilon", "1"], "did you mean 'flow'"),
        (["SELECT junctoin, COUNT(*) FROM flow GROUP BY 1", "--epsilon", "1"], "did you mean 'junction'"),
        (["SELECT district, COUNT(*) FROM flow GROUP BY 1", "--epsilon", "1"], "--private-keys"),
        (["SELECT COUNT(*) FROM flow"], "epsilon"),
        (["SELECT COUNT(*) FROM flow", "--epsilon", "-1"], "epsilon"),
        (["SELECT COUNT(*) FROM flow", "--epsilon", "0"], "epsilon"),
        (["SELECT COUNT(*) FROM flow", "--epsilon", "nan"], "finite"),
        (["SELECT COUNT(*) FROM flow", "--epsilon", "1", "--share", "mine"], "unknown share"),
        (["SELECT COUNT(*) FROM flow", "--epsilon", "1", "--engine", "dukdb"], "did you mean 'duckdb'"),
        (["SELECT COUNT(*) FROM flow", BY_JUNCTION, "--epsilon", "1", "--csv", "a.csv"], "one question"),
        ([" ; -- nothing", "--epsilon", "1"], "no question"),
        (["--json"], "Give a question"),
        ([BY_JUNCTION, "--epsilon", "1", "--target-error", "9"], "one follows from the other"),
        ([BY_JUNCTION, "--epsilon", "1", "--csv", "nowhere/a.csv"], "no folder nowhere"),
        (
            [f"{BY_JUNCTION}, hour, speed > 9", "--plot", "a.svg", "--epsilon", "1"],
            "one or two keys",
        ),
    ],
)
def test_what_cannot_be_asked_ends_with_2(
    refusing: Project, monkeypatch, capsys, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(refusing.root)
    assert run("query", *arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert says in error
    assert charges(refusing) == 0


def test_what_the_policy_refuses_ends_with_3(project: Project, capsys) -> None:
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "1", "--purpose", "marketing") == 3
    assert "traffic-planning" in capsys.readouterr().err
    wanted = ("SELECT district, COUNT(*) AS n FROM flow GROUP BY 1", "--epsilon", "1", "--private-keys")
    assert run("query", *wanted) == 3
    assert "kind 'sum'" in capsys.readouterr().err


def test_who_may_not_ask_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    project = crossing(tmp_path, more=f'\n[roles]\nowner = ["somebody"]\nauditor = ["uid:{os.getuid()}"]\n')
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "1") == 3
    out, error = capsys.readouterr()
    assert (out, "auditor" in error) == ("", True)
    assert charges(project) == 0


def test_what_does_not_fit_ends_with_4(project: Project, capsys) -> None:
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "101") == 4
    error = capsys.readouterr().err
    assert "Left: epsilon 100" in error
    assert "Missing: epsilon 1" in error
    assert charges(project) == 0
    most = float(error.rpartition("For this question: epsilon ")[2].rstrip(".\n"))
    assert 99.8 < most <= 100
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", str(most)) == 0


def test_a_share_belongs_to_its_users(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    more = """
[populations.drivers.shares.planners]
epsilon = 1
delta = 1e-7
users = ["somebody-else"]
"""
    crossing(tmp_path, more=more)
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "1") == 3
    assert "planners" in capsys.readouterr().err


def test_groups_are_chosen_privately_from_a_sum_share(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    more = '\n[populations.drivers.shares.open]\nkind = "sum"\nepsilon = 50\ndelta = 1e-6\n'
    crossing(tmp_path, more=more)
    question = "SELECT district, COUNT(*) AS n FROM flow GROUP BY district"
    options = ("--epsilon", "20", "--delta", "1e-7", "--private-keys", "--groups", "1")
    (answer,) = asked(capsys, question, *options)["answers"]
    assert [row["district"] for row in answer["rows"]] == ["d0", "d1", "d2"]
    assert answer["cost"]["delta"] not in ("0", "")


def test_without_a_project_or_the_extra_it_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "1") == 2
    assert "sfumato init" in capsys.readouterr().err
    monkeypatch.setattr("sfumato.core.plugins.importlib.util.find_spec", lambda name: None)
    assert run("query", "SELECT COUNT(*) FROM flow", "--epsilon", "1") == 2
    assert "pip install 'sfumato[queries]'" in capsys.readouterr().err


# How it looks


def test_names_from_the_data_cannot_steer_a_terminal() -> None:
    from sfumato.cli.query_show import word

    assert word("evil\x1b[2J\u202e") == "evil\\x1b[2J\\u202e"
    assert word(None) == "total"


def test_help_loads_no_engine() -> None:
    code = (
        "import sys; from sfumato.cli.main import cli; cli.main(['query', '--help'], standalone_mode=False); "
        "print([name for name in ('duckdb', 'ibis', 'sqlglot', 'numpy', 'pyarrow') if name in "
        "sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
