"""Checkpoints: whole or not at all, private, without pickle, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from private_runs import data, model  # noqa: E402

from sfumato.core.errors import IntegrityError, InvalidRequest  # noqa: E402
from sfumato.training import checkpoint  # noqa: E402
from sfumato.training.checkpoint import Checkpoint, below, flatten, unflatten  # noqa: E402


def test_a_round_trip_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    Checkpoint(below("model", {"w": torch.arange(3.0)}), {"a": [1, {"b": None}]}).write(path)
    again = Checkpoint.read(path)
    assert again.part("model")["w"].tolist() == [0, 1, 2]
    assert again.state == {"a": [1, {"b": None}]}
    assert path.stat().st_mode & 0o077 == 0
    assert not again.part("mod")


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_every_optimisers_state_survives(tmp_path: Path, kind: str) -> None:
    def steps(net, optimizer, count: int) -> None:
        images, labels = data()
        for _ in range(count):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()

    def build(net):
        more = {"momentum": 0.9} if kind == "SGD" else {}
        return getattr(torch.optim, kind)(net.parameters(), lr=0.01, **more)

    net = model()
    optimizer = build(net)
    steps(net, optimizer, 3)
    tensors, rest = flatten(optimizer.state_dict())
    path = tmp_path / "c.safetensors"
    Checkpoint(below("model", net.state_dict()) | below("optimizer", tensors), {"optimizer": rest}).write(
        path
    )
    steps(net, optimizer, 2)
    other = model(7)
    again = build(other)
    saved = Checkpoint.read(path)
    other.load_state_dict(saved.part("model"))
    again.load_state_dict(unflatten(saved.part("optimizer"), saved.state["optimizer"]))
    steps(other, again, 2)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_tied_and_strided_tensors_are_written(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    Checkpoint({"a": weight, "b": weight, "c": weight.T, "d": weight[:1]}).write(tmp_path / "c.safetensors")
    again = Checkpoint.read(tmp_path / "c.safetensors").tensors
    assert torch.equal(again["c"], weight.T)
    assert torch.equal(again["a"], again["b"])


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="object"):
        flatten({"x": object()})
    tensors, rest = flatten({"x": (1, [2.5, "s", None, True, {3: torch.ones(2)}])})
    assert unflatten(tensors, rest)["x"][1][4][3].tolist() == [1, 1]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "other"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.safetensors"
    Checkpoint({"w": torch.ones(100)}).write(path)
    good = path.read_bytes()
    if damage == "other":
        from safetensors.torch import save_file

        save_file({"w": torch.ones(2)}, str(path))
    else:
        path.write_bytes({"truncated": good[:-50], "garbage": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(IntegrityError, match="does not read as a checkpoint"):
        Checkpoint.read(path)
    with pytest.raises(InvalidRequest, match="no checkpoint"):
        Checkpoint.read(tmp_path / "none")


def test_a_crash_while_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    Checkpoint({"w": torch.ones(2)}).write(path)
    monkeypatch.setattr(checkpoint, "save_tensors", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        Checkpoint({"w": torch.zeros(2)}).write(path)
    assert Checkpoint.read(path).tensors["w"].tolist() == [1, 1]
    assert [one.name for one in tmp_path.iterdir()] == ["c.safetensors"]
