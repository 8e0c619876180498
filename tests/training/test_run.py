"""A run: charged before it starts, counted before its noise, settled to the steps taken, taken up once."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from private_runs import ASKED, LOSS, data, model, project_at, sgd  # noqa: E402

import sfumato.training as training  # noqa: E402
from sfumato.core.entropy import SeededEntropy  # noqa: E402
from sfumato.core.errors import (  # noqa: E402
    BudgetSpent,
    IntegrityError,
    InvalidRequest,
    MissingExtra,
    PolicyRefused,
)
from sfumato.core.project import Project  # noqa: E402
from sfumato.core.receipt import Receipt  # noqa: E402
from sfumato.core.verify import verify  # noqa: E402
from sfumato.training.journal import STEPS, runs  # noqa: E402
from sfumato.training.run import TrainingRun  # noqa: E402


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_at(tmp_path / "p")


def spent(project: Project, share: str = "train") -> Fraction:
    return next(one.spent_epsilon for one in project.ledger.balances() if one.share == share)


def train(run: TrainingRun, steps: int = 10**9, save: bool = False, net: Any = None) -> training.Private:
    net = net or model()
    private = training.private(net, LOSS, optimizer=sgd(net), run=run)
    for batch in private.batches(data()):
        private.step(batch)
        if save:
            private.save()
        if batch.number >= steps:
            break
    return private


def kinds(project: Project) -> list[str]:
    return [
        row.kind for row in project.ledger.entries() if row.kind in ("reserve", "settle", "void", "claim")
    ]


def test_a_whole_run_is_charged_first_and_released_with_a_receipt(project: Project, tmp_path: Path) -> None:
    net = model()
    with project.training(**ASKED) as run:
        assert spent(project) == run.planned.price > 0
        train(run, net=net)
        assert run.left == 0
        receipt = run.release(net, tmp_path / "out" / "model.safetensors", facts={"epochs": 1})
    assert spent(project) == run.planned.price
    again = Receipt.read(tmp_path / "out" / "model.safetensors.receipt.json")
    again.verify_ledger(project.ledger)
    assert again.verify_files((tmp_path / "out").iterdir()) == (
        tmp_path / "out" / "model.safetensors.receipt.json",
    )
    assert receipt.body["facts"]["steps"] == 8
    assert "settled_event" not in receipt.body
    assert "not_private" not in receipt.body
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["0.weight"], net[0].weight)
    verify(project.ledger)
    with pytest.raises(InvalidRequest, match="ended"):
        run.begin()


def test_a_run_beyond_its_steps_is_refused(project: Project) -> None:
    with project.training(**ASKED) as run:
        train(run)
        with pytest.raises(InvalidRequest, match="all 8 steps"):
            run.begin()


def test_an_early_stop_settles_to_the_steps_taken(project: Project) -> None:
    with project.training(**(ASKED | {"share": "filter"})) as run:
        whole = spent(project, "filter")
        train(run, steps=2)
    assert run.receipt is not None
    assert run.receipt.body["settled_event"]["times"] == 2
    assert 0 < spent(project, "filter") < whole
    before = spent(project)
    with project.training(**ASKED) as run:
        train(run, steps=2)
    assert spent(project) - before == run.planned.price  # a share of kind sum keeps the price
    verify(project.ledger)


def test_a_receipt_never_claims_less_than_was_charged(project: Project) -> None:
    with project.training(**ASKED) as run:
        train(run, steps=1)
        receipt = run.finish(facts={"epsilon": "0.001", "delta": "0", "steps": 0, "epochs": 1})
    facts = receipt.body["facts"]
    assert Fraction(facts["epsilon"]) >= run.planned.price
    assert Fraction(facts["epsilon"]) < run.planned.price * Fraction(1001, 1000)
    assert Fraction(facts["delta"]) == run.planned.delta
    assert (facts["steps"], facts["epochs"]) == (1, 1)


def test_a_run_that_fails_before_any_step_is_taken_back_and_later_stands(project: Project) -> None:
    def failing(steps: int) -> None:
        with project.training(**ASKED) as run:
            if steps:
                train(run, steps)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing(0)
    assert spent(project) == 0
    with pytest.raises(RuntimeError):
        failing(1)
    assert spent(project) > 0
    assert kinds(project) == ["reserve", "void", "reserve"]


def test_every_trial_of_a_search_is_charged(project: Project) -> None:
    for rate in (0.1, 1.0):
        net = model()
        with project.training(**ASKED) as run:
            private = training.private(net, LOSS, optimizer=sgd(net, rate), run=run)
            for batch in private.batches(data()):
                private.step(batch)
    assert spent(project) == 2 * run.planned.price
    spend = [project.training(**ASKED) for _ in range(3)]  # five times a fifth of the share's delta
    assert len(spend) == 3
    with pytest.raises(BudgetSpent):
        project.training(**ASKED)


def test_private_validation_is_charged_by_itself(project: Project) -> None:
    with project.training(**ASKED) as run:
        train(run)
        before = spent(project)
        right = [True] * 900 + [False] * 100
        found = run.evaluate(right, epsilon="0.5", delta="1e-6", public_size=1000)
        assert Fraction("0.49") < spent(project) - before <= Fraction("0.5")
        assert abs(found.value - 0.9) < 6 * found.deviation < 0.1
        assert found.receipt.body["plan"]["mechanism"] == "private validation"
        for wrong in ([0.5, 2.0], [float("nan")], [[1.0]]):
            with pytest.raises(InvalidRequest, match=r"0\.\.1"):
                run.evaluate(wrong, epsilon=1, public_size=10)
        with pytest.raises(InvalidRequest, match="public_size"):
            run.evaluate([1.0], epsilon=1, public_size=0)
        with pytest.raises(BudgetSpent):
            run.evaluate([1.0], epsilon=30, public_size=10)
    verify(project.ledger)


def test_validation_counts_people_once(tmp_path: Path) -> None:
    project = project_at(tmp_path / "q", "person")
    run = project.training(**(ASKED | {"share": "filter"}))
    with run:
        with pytest.raises(InvalidRequest, match="unit is person"):
            run.evaluate([1.0] * 4, epsilon=1, public_size=10)
        found = run.evaluate([1.0] * 1000 + [0.0], epsilon=10, public_size=2, units=["a"] * 1000 + ["b"])
    assert abs(found.value - 0.5) < 6 * found.deviation


def test_a_run_goes_on_where_its_checkpoint_was(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    net = model()

    def interrupted() -> None:
        with project.training(**ASKED, checkpoint=path) as run:
            private = train(run, steps=3, net=net)
            private.save({"epoch": 1})
            run.begin()  # a step that began, and was lost
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    charged = spent(project)
    other = model(9)
    with project.training(**ASKED, checkpoint=path, resume=True) as run:
        assert run.begun == 4
        private = training.private(other, LOSS, optimizer=sgd(other), run=run)
        assert private.extra == {"epoch": 1}
        assert torch.equal(other[0].weight, net[0].weight)
        numbers = []
        for batch in private.batches(data()):
            private.step(batch)
            numbers.append(batch.number)
        assert numbers == [5, 6, 7, 8]
    assert spent(project) == charged
    assert run.receipt is not None
    facts = run.receipt.body["facts"]
    assert {name: facts[name] for name in ("steps", "resumed")} == {"steps": 8, "resumed": True}
    assert kinds(project) == ["reserve", "claim", "settle"]
    verify(project.ledger)
    with pytest.raises(InvalidRequest, match="already ended"):
        project.training(**ASKED, checkpoint=path, resume=True)


def test_resume_finds_the_unfinished_run_with_these_settings_and_else_begins(project: Project) -> None:
    with project.training(**ASKED, resume=True) as run:
        first = run.permit.reservation
        train(run, steps=2)
        run.pause()
    with project.training(**(ASKED | {"clip": 2.0}), resume=True) as run:
        assert run.permit.reservation != first
        run.pause()
    with project.training(**ASKED, resume=True) as run:
        assert (run.permit.reservation, run.begun, run.loaded) == (first, 2, None)


def test_noise_is_fresh_after_taking_up(project: Project, tmp_path: Path) -> None:
    """The same step twice from the same checkpoint: the same weights, other noise."""
    path, seen = tmp_path / "c.safetensors", []
    with project.training(**(ASKED | {"rate": "1e-9", "public_size": 0}), checkpoint=path) as run:
        train(run, steps=1).save()
        run.pause()
    for _ in range(3):
        net = model()
        with project.training(
            **(ASKED | {"rate": "1e-9", "public_size": 0}), checkpoint=path, resume=True
        ) as run:
            private = training.private(net, LOSS, optimizer=sgd(net), run=run)
            before = net[0].weight.detach().clone()
            private.step(next(private.batches(data())))
            seen.append(net[0].weight.detach() - before)
            run.pause()
    assert run.begun == 4
    assert not any(torch.equal(one, two) for one, two in ((seen[0], seen[1]), (seen[1], seen[2])))


def test_of_two_processes_one_goes_on(project: Project) -> None:
    first = project.training(**ASKED)
    private = train(first, steps=2)
    with pytest.raises(PolicyRefused, match="spent twice"):
        project.training(**ASKED, resume=True)
    # A lock that did not hold, as on some network file systems: the ledger's claim still does.
    (first._journal.folder / "lock").unlink()
    with project.training(**ASKED, resume=True) as second:
        with pytest.raises(PolicyRefused, match="taken up by another"):
            next(private.batches(data()))
        with pytest.raises(PolicyRefused, match="taken up by another"):
            first.save({})
        with pytest.raises(PolicyRefused, match="taken up by another"):
            first.finish()
        train(second)
    assert kinds(project) == ["reserve", "claim", "settle"]


def test_an_older_journal_or_another_checkpoint_is_refused(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with project.training(**ASKED, checkpoint=path) as run:
        train(run, steps=3, save=True)
        run.pause()
    folder = next(runs(project.root / ".sfumato"))
    kept = (folder / STEPS).read_text()
    (folder / STEPS).write_text("1\n")
    with pytest.raises(IntegrityError, match="fewer steps than the checkpoint"):
        project.training(**ASKED, checkpoint=path, resume=True)
    (folder / STEPS).write_text(kept)
    with pytest.raises(PolicyRefused, match="other settings"):
        project.training(**(ASKED | {"clip": 2.0}), checkpoint=path, resume=True)
    with pytest.raises(InvalidRequest, match="resume=True"):
        project.training(**ASKED, checkpoint=path)
    other = project_at(tmp_path / "q")
    with pytest.raises(InvalidRequest, match="another project"):
        other.training(**ASKED, checkpoint=path, resume=True)
    (folder / "run.json").unlink()
    with pytest.raises(IntegrityError, match="where it began"):
        project.training(**ASKED, checkpoint=path, resume=True)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_copy_of_the_process_draws_nothing(project: Project) -> None:
    with project.training(**ASKED) as run:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            try:
                run.begin()
                os.write(write, b"drew")
            except InvalidRequest:
                os.write(write, b"refused")
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 10) == b"refused"
        assert run.begin() == 1


def test_counting_ahead_never_counts_too_few(project: Project) -> None:
    asked = ASKED | {"count_ahead": 3}
    with project.training(**asked) as run:
        train(run, steps=4)
        run.pause()
    with project.training(**asked, resume=True) as run:
        assert run.begun == 6
        assert run.left == 2
        train(run)
        assert run.begun == 8


def test_a_guard_may_keep_the_model_back(project: Project, tmp_path: Path) -> None:
    def found(run: TrainingRun) -> None:
        raise PolicyRefused("an audit found more than the claim")

    net = model()
    with project.training(**ASKED) as run:
        train(run, net=net)
        with pytest.raises(PolicyRefused, match="audit"):
            run.release(net, tmp_path / "m.safetensors", guards=[found])
        assert not (tmp_path / "m.safetensors").exists()


def test_a_model_that_cannot_be_settled_does_not_appear(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with project.training(**ASKED) as run:
        train(run)
        with monkeypatch.context() as patch:
            patch.setattr(type(run.permit), "settle", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(OSError, match="full"):
                run.release(model(), tmp_path / "m.safetensors")
        assert not list(tmp_path.glob("*.safetensors"))


def test_a_seeded_run_is_the_same_twice_and_says_that_it_is_not_private(project: Project) -> None:
    nets = []
    for _ in range(2):
        net = model()
        with project.training(**ASKED, entropy=SeededEntropy(3)) as run:
            train(run, net=net)
        nets.append(net[0].weight)
        assert run.receipt is not None
        assert "not_private" in run.receipt.body
    assert torch.equal(nets[0], nets[1])


def test_neither_checkpoint_nor_receipt_holds_a_key(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with project.training(**ASKED, checkpoint=path) as run:
        train(run, steps=2, save=True)
        key = json.loads((run._journal.folder / "run.json").read_text())["key"]
    assert run.receipt is not None
    for text in (path.read_bytes(), json.dumps(run.receipt.to_data()).encode()):
        assert key.encode() not in text
        assert bytes.fromhex(key) not in text


def test_settings_may_be_given_whole_and_not_twice(project: Project) -> None:
    asked = training.TrainingSettings(**ASKED)  # type: ignore[arg-type]
    with project.training(asked) as run:
        assert run.settings.steps == 8
    with pytest.raises(InvalidRequest, match="not both"):
        project.training(asked, steps=3)


def test_what_is_missing_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(MissingExtra, match=r"sfumato\[training\]"):
        project.training(**ASKED)


def test_the_run_leaves_the_ledger_as_it_was_when_it_does_not_fit(project: Project) -> None:
    with pytest.raises(BudgetSpent):
        project.training(**(ASKED | {"noise_multiplier": "0.3", "steps": 500}))
    assert kinds(project) == []
    assert not list(runs(project.root / ".sfumato"))


def test_a_purpose_that_rests_on_consent_trains_until_it_is_taken_back(tmp_path: Path) -> None:
    project = project_at(tmp_path / "q", "person")
    rules = (tmp_path / "q" / "sfumato.toml").read_text()
    consent = '[purposes.study]\nlawful_basis = "consent"\nactions = ["train"]\n'
    (tmp_path / "q" / "sfumato.toml").write_text(rules + consent)
    project = Project(project.root)
    asked = ASKED | {"purpose": "study"}
    with pytest.raises(PolicyRefused, match="consent register"):
        project.training(**asked)
    project.consent.give("a" * 32, "study")
    decision = project.gate().ask("study", ["a" * 32])
    assert decision is not None
    with project.training(**asked, consent=decision.evidence) as run:
        run.begin()
        run.pause()
    project.consent.withdraw("a" * 32, "study")
    with pytest.raises(PolicyRefused):
        project.training(**asked, consent=decision.evidence, resume=True)


def test_the_books_tell_of_a_run_that_was_taken_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from sfumato.cli.main import cli

    with project.training(**ASKED) as run:
        train(run, steps=2)
        run.pause()
    project.training(**ASKED, resume=True).finish()
    project.close()
    monkeypatch.chdir(project.root)
    told = CliRunner().invoke(cli, ["ledger", "show"], env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    assert "taken up again, after 2 steps" in told.output
    assert CliRunner().invoke(cli, ["ledger", "verify"]).exit_code == 0
    assert CliRunner().invoke(cli, ["report"]).exit_code == 0
