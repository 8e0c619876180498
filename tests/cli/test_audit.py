"""`sfumato audit`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.cli.main import main
from sfumato.core.event import Gaussian, PoissonSampled, Repeated
from sfumato.core.project import Project
from sfumato.core.receipt import Receipt

pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

SMALL = ("--noise-multiplier", "2", "--rate", "0.25", "--steps", "12", "--canaries", "400")


def run(*arguments: str) -> int:
    try:
        main(["audit", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_training_code_passes_and_a_picture_is_written(tmp_path: Path, capsys) -> None:
    assert run(*SMALL, "-o", str(tmp_path / "audit.svg")) == 0
    said = capsys.readouterr()
    for word in ("Claim:", "Lower bound:", "Ceiling:", "clip-bound", "Verdict: nothing speaks against"):
        assert word in said.out
    assert "not a trained model" in said.err
    assert (tmp_path / "audit.svg").read_text().startswith("<svg")


def test_a_receipt_names_the_mechanism(tmp_path: Path, capsys) -> None:
    event = Repeated(PoissonSampled("0.25", Gaussian(2)), 12)
    how = {"clip": "0.5", "clipping": "automatic", "precision": "float32"}
    plan = {"event": event.to_data(), "mechanism": "dp-sgd", "parameters": how}
    body = {"guarantee": {"type": "proven"}, "outputs": [], "plan": plan}
    Receipt(body).write(tmp_path / "receipt.json")
    assert run(str(tmp_path / "receipt.json"), "--canaries", "200", "--json") == 0
    assert json.loads(capsys.readouterr().out)["claim"]["delta"] == 1e-5
    assert run(str(tmp_path / "receipt.json"), "--canaries", "200", "--delta", "1e-6", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["claim"]["steps"] == 12
    assert data["claim"]["delta"] == 1e-6
    assert data["epsilon_lower"] <= data["claim"]["epsilon"]


def test_a_run_that_stopped_early_is_audited_for_what_it_took(tmp_path: Path, capsys) -> None:
    step = PoissonSampled("0.25", Gaussian(2))
    body = {
        "guarantee": {"type": "proven"},
        "outputs": [],
        "plan": {"event": Repeated(step, 12).to_data(), "mechanism": "dp-sgd"},
        "settled_event": Repeated(step, 7).to_data(),
    }
    Receipt(body).write(tmp_path / "receipt.json")
    assert run(str(tmp_path / "receipt.json"), "--canaries", "100", "--json") == 0
    assert json.loads(capsys.readouterr().out)["claim"]["steps"] == 7
    body["plan"] = {"event": Repeated(Gaussian(2), 12).to_data(), "mechanism": "dp-ftrl"}
    Receipt(body).write(tmp_path / "receipt.json")
    assert run(str(tmp_path / "receipt.json")) == 2
    assert "dp-ftrl" in capsys.readouterr().err


def test_broken_training_code_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from sfumato.training.audited import Rehearsal

    step = Rehearsal.step
    monkeypatch.setattr(Rehearsal, "step", lambda self, members: step(self, members) / 2)
    assert run(*SMALL) == 1
    assert "BROKEN noise-deviation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--noise-multiplier, --rate, --steps missing"),
        (("--rate", "0.1"), "--noise-multiplier, --steps missing"),
        ((*SMALL, "-o", "audit.png"), "SVG"),
        (("--noise-multiplier", "nan", "--rate", "0.25", "--steps", "12"), "finite number"),
        (("--noise-multiplier", "0", "--rate", "0.25", "--steps", "12"), "above 0"),
        (("--noise-multiplier", "2", "--rate", "1.5", "--steps", "12"), "0..1"),
    ],
)
def test_usage(arguments: tuple[str, ...], said: str, capsys) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


def test_a_receipt_and_settings_together_are_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "receipt.json").write_text("{}")
    assert run(str(tmp_path / "receipt.json"), "--rate", "0.1") == 2
    assert "not both" in capsys.readouterr().err
    assert run(str(tmp_path / "receipt.json")) == 5


TRAIN = """
[data]
npz = "data.npz"
[model]
features = "scattering"
[privacy]
epsilon = 1
delta = 1e-5
public_size = 40
expected_batch = 10
[optimiser]
lr = 1
[train]
steps = 3
[out]
model = "model.safetensors"
"""


@pytest.mark.parametrize("broken", [False, True])
def test_a_training_that_fails_its_audit_keeps_the_model(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from sfumato.training.audited import Rehearsal

    Project.init(tmp_path, name="demo").ledger.close()
    with (tmp_path / "sfumato.toml").open("a") as file:
        file.write('\n[populations.people]\nunit = "image"\nepsilon = 2\ndelta = 1e-4\n')
    rng = np.random.default_rng(1)
    np.savez(
        tmp_path / "data.npz",
        x_train=rng.integers(0, 255, (40, 16, 16), np.uint8),
        y_train=np.arange(40) % 3,
    )
    (tmp_path / "run.toml").write_text(TRAIN)
    monkeypatch.chdir(tmp_path)
    if broken:
        step = Rehearsal.step
        monkeypatch.setattr(Rehearsal, "step", lambda self, members: step(self, members) / 3)
    assert train("run.toml", "--audit", "--json") == (1 if broken else 0)
    said = capsys.readouterr()
    assert (tmp_path / "model.safetensors").exists() != broken
    if broken:
        assert "not released" in said.err
    else:
        assert json.loads(said.out)["audit"]["guarantee"]["type"] == "tested"


def test_a_detector_is_not_audited_in_passing(capsys) -> None:
    assert train("--detector", "yolo26n.pt", "--audit") == 2
    assert "sfumato audit" in capsys.readouterr().err


def train(*arguments: str) -> int:
    try:
        main(["train", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
