"""What could still be done: each answer is admitted, and the next larger is not."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.errors import BudgetSpent
from sfumato.core.event import Event, Gaussian, Laplace, PoissonSampled, PureDP, Repeated
from sfumato.core.ledger import Ledger
from sfumato.core.outlook import Questions, outlook, timeline
from sfumato.core.project import Project

ASKED = Questions(
    gaussian=(Fraction(30),), laplace=(Fraction(40),), training=((Fraction(1, 100), Fraction(11, 10)),)
)


@pytest.fixture(params=["filter", "sum"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=2, delta="1e-6", unit="person")
    ledger.open_share("p", "s", kind=request.param, epsilon=2, delta="1e-6")
    delta = 0 if request.param == "filter" else "5e-7"
    ledger.reserve({}, Gaussian(20), population="p", share="s", delta=delta)
    return ledger


def admitted(ledger: Ledger, event: Event, *, pure: bool = False) -> bool:
    """Whether the ledger takes it now; taken back at once."""
    delta = "5e-7" if ledger.balances()[0].kind == "sum" and not pure else 0
    try:
        row = ledger.reserve({}, event, population="p", share="s", delta=delta)
    except BudgetSpent:
        return False
    ledger.void(row.seq, reason="only asked")
    return True


def test_every_answer_is_admitted_and_a_larger_one_is_not(ledger: Ledger) -> None:
    (found,) = outlook(ledger, ASKED)
    value = {answer.question.split(" with ")[0].split(" at ")[0]: answer.value for answer in found.answers}
    exact = found.kind == "filter"
    for event, name, pure in (
        (Gaussian(30), "Gaussian releases", False),
        (Laplace(40), "Laplace releases", True),
        (PoissonSampled("0.01", Gaussian("1.1")), "training steps", False),
    ):
        count = int(value[name])
        assert count > 5
        assert admitted(ledger, Repeated(event, count), pure=pure)
        more = count + 1 if exact else count + count // 100 + 2
        assert not admitted(ledger, Repeated(event, more), pure=pure)
    for times in (1, 10, 100):
        noise = Fraction(value[f"least noise multiplier of {times} more Gaussian"])
        assert admitted(ledger, Repeated(Gaussian(noise), times))
        assert not admitted(ledger, Repeated(Gaussian(noise * Fraction(997, 1000)), times))
    epsilon = Fraction(value["largest epsilon of one more pure release"])
    assert epsilon > 0
    assert admitted(ledger, PureDP(epsilon), pure=True)
    assert not admitted(ledger, PureDP(epsilon + Fraction(1, 10**6)), pure=True)


def test_nothing_fits_a_spent_share() -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta=0, unit="person")
    ledger.open_share("p", "s", kind="sum", epsilon=1, delta=0)
    ledger.reserve({}, PureDP(1), population="p", share="s")
    values = {answer.value for answer in outlook(ledger)[0].answers}
    assert values == {"0", "none"}


def test_a_population_that_replaces_one_is_not_promised_sampling() -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta="1e-6", unit="person", relation="replace-one")
    ledger.open_share("p", "s", kind="filter", epsilon=1, delta="1e-6")
    assert not [a for a in outlook(ledger)[0].answers if "training" in a.question]


def test_the_timeline_follows_charge_and_settlement() -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta=0, unit="person")
    ledger.open_share("p", "s", kind="sum", epsilon=1, delta=0)
    row = ledger.reserve({}, Repeated(PureDP("0.25"), 2), population="p", share="s")
    ledger.settle(row.seq, receipt="r", event=PureDP("0.25"))
    ledger.void(ledger.reserve({}, PureDP("0.5"), population="p", share="s").seq, reason="x")
    assert [(point.kind, point.part) for point in timeline(ledger)] == [
        ("share", 0),
        ("reserve", 0.5),
        ("settle", 0.25),
        ("reserve", 0.75),
        ("void", 0.25),
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Project:
    project = Project.init(tmp_path / "p")
    project.ledger.close()
    with (project.root / "sfumato.toml").open("a") as file:
        file.write('[populations.residents]\nunit = "person"\nepsilon = 1\ndelta = 1e-6\n')
    monkeypatch.chdir(project.root)
    return Project(project.root)


def test_the_commands_print_and_count(project: Project, capsys) -> None:
    project.ledger.reserve({}, Gaussian(50), population="residents", share="all")
    main(["ledger", "plan", "--gaussian", "50", "--json"])
    (share,) = json.loads(capsys.readouterr().out)["shares"]
    assert share["answers"][0] == {
        "question": "Gaussian releases with noise multiplier 50",
        "value": "120",
    }
    main(["ledger", "plan"])
    assert "training steps at sampling rate 0.01" in capsys.readouterr().out
    main(["ledger", "show"])
    shown = capsys.readouterr().out
    assert "spent over rows 1 to 4" in shown
    main(["ledger", "show", "--json"])
    points = json.loads(capsys.readouterr().out)["timeline"]
    assert [point["kind"] for point in points] == ["share", "reserve"]
    main(["ledger", "prove", "4"])
    assert json.loads(capsys.readouterr().out)["size"] == 4
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "plan", "--gaussian", "nan"])
    assert ended.value.code == 2
