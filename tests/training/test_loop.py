"""One step, against a loop over single images; what leaves it, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from private_runs import ASKED, COUNT, LOSS, data, model, project_at, sgd  # noqa: E402
from slow_engine import SlowEngine  # noqa: E402

import sfumato.training as training  # noqa: E402
from sfumato.core.entropy import SeededEntropy  # noqa: E402
from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.loop import Private  # noqa: E402
from sfumato.training.run import TrainingRun  # noqa: E402
from sfumato.training.sampling import Sample  # noqa: E402


def run_at(path: Path, unit: str = "image", seed: int | None = None, **changes: Any) -> TrainingRun:
    more = {} if seed is None else {"entropy": SeededEntropy(seed)}
    return project_at(path, unit).training(**(ASKED | changes), **more)


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let noise be nought, so that what is left is the clipped mean."""
    monkeypatch.setattr("sfumato.mechanisms.gaussian._Work.make", lambda work, fill: work._out * 0)


def weights(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().reshape(-1) for value in net.parameters()])


@pytest.mark.parametrize("clipping", ["flat", "automatic", "per-layer"])
def test_a_step_moves_the_model_by_noise_of_the_right_deviation(tmp_path: Path, clipping: str) -> None:
    """The clipped mean is bounded, so over many values the noise's deviation shows; half of it would too."""
    net = torch.nn.Linear(400, 50)
    images = torch.randn(20, 400)
    asked = {"expected_batch": 20, "public_size": 20, "steps": 30, "clipping": clipping, "clip": 0.5}
    moved = []
    with run_at(tmp_path / "p", noise_multiplier=3, **asked) as run:
        private = training.private(net, LOSS, optimizer=sgd(net, 1.0), run=run)
        for batch in private.batches((images, torch.zeros(20, dtype=torch.long))):
            before = weights(net)
            private.step(batch)
            moved.append(weights(net) - before)
    steps = torch.stack(moved)
    expected = 3 * 0.5 / 20
    spread = (steps[1:] - steps[:-1]).std() / math.sqrt(2)  # the drift of the mean falls out
    assert abs(spread / expected - 1) < 0.01
    assert abs(spread / (expected / 2) - 1) > 0.5
    first, second = steps[10].numpy(), steps[11].numpy()
    mean = steps.mean(0).numpy()
    assert abs(np.corrcoef(first - mean, second - mean)[0, 1] + 1 / 29) < 0.05


@pytest.mark.parametrize("most", [1000, 7, 1])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("unit", ["image", "person"])
def test_a_step_is_the_clipped_mean_over_units_whatever_the_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, views: int, unit: str
) -> None:
    quiet(monkeypatch)
    images, labels = data()
    keys = [index // 3 for index in range(COUNT)] if unit == "person" else None
    net, oracle = model(), model()
    before = weights(net)
    asked = {"physical_batch": most * views, "views": views, "clip": 0.3, "images_per_unit": 3}
    with run_at(tmp_path / "p", unit, seed=4, **asked) as run:
        private = training.private(net, LOSS, optimizer=sgd(net, 1.0), run=run, augment=lambda x: x + 0.1)
        batch = next(iter(private.batches((images, labels), units=keys)))
        chosen = torch.from_numpy(batch.sample.images)
        private.step(batch)
        run.pause()
    slow = SlowEngine(oracle, 0.3)
    whose = torch.from_numpy(batch.sample.units)
    repeated, targets = (
        images[chosen].repeat_interleave(views, 0) + 0.1,
        labels[chosen].repeat_interleave(views),
    )
    wanted = slow.gradients(
        lambda: LOSS(oracle(repeated), targets), whose.repeat_interleave(views), views=views
    ).sum
    assert len(chosen) > 7
    flat = torch.cat([wanted[name].reshape(-1) for name, _ in oracle.named_parameters()])
    assert torch.allclose(before - weights(net), flat / run.settings.normaliser, atol=1e-6)
    assert not torch.allclose(before - weights(net), flat / len(set(whose.tolist())), atol=1e-6)


@pytest.mark.parametrize("clipping", ["flat", "automatic", "per-layer"])
@pytest.mark.parametrize("most", [300, 16])
def test_one_unit_more_moves_what_is_noised_by_no_more_than_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipping: str, most: int
) -> None:
    """In float32, after rounding on the grid, whoever it is and wherever it stands; all are clipped."""
    quiet(monkeypatch)
    clip = 0.01
    asked = {"rate": 1, "public_size": 0, "expected_batch": 1, "clip": clip, "clipping": clipping}
    net = model()
    images, labels = data(300)
    images[7] *= 1e4  # somebody who stands out

    def released(without: int | None) -> torch.Tensor:
        keep = [index for index in range(300) if index != without]
        run = run_at(tmp_path / "p", steps=1, physical_batch=most, share="filter", **asked)
        with run:
            private = training.private(net, LOSS, optimizer=sgd(net, 0.0), run=run)
            noised: list[torch.Tensor] = []
            private._optimizer.step = lambda: noised.append(  # type: ignore[method-assign,misc,assignment]
                torch.cat([value.grad.double().reshape(-1) for value in net.parameters()])
            )
            private.step(next(private.batches((images[keep], labels[keep]))))
        return noised[0]

    whole = released(None)
    for who in (0, 7, 150, 299):
        moved = float((whole - released(who)).norm())
        assert clip * 0.5 < moved <= clip
    assert float((whole - released(None)).norm()) == 0


def test_an_empty_sample_is_a_step_of_noise_alone(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p", rate="1e-9", expected_batch=10, public_size=0, steps=3) as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        for batch in private.batches(data()):
            before = weights(net)
            assert len(batch.sample) == 0
            private.step(batch)
            assert (weights(net) != before).all()
        assert run.begun == 3


def test_the_unit_is_never_the_image_in_silence(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p", "patient") as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        with pytest.raises(InvalidRequest, match="unit is patient"):
            next(private.batches(data()))
        with pytest.raises(InvalidRequest, match="200 images have 3 units"):
            next(private.batches(data(), units=["a", "b", "c"]))
        assert run.begun == 0
        private.step(next(private.batches(data(), units=[i % 50 for i in range(COUNT)])))


def test_a_batch_is_used_once_and_none_is_left_out(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p") as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        batches = private.batches(data())
        first = next(batches)
        with pytest.raises(InvalidRequest, match="left out"):
            next(batches)
        private.step(first)
        for wrong in (first, data(), None):
            with pytest.raises(InvalidRequest, match="drew last"):
                private.step(wrong)  # type: ignore[arg-type]
        assert run.begun == 1


def test_what_a_batch_shows_does_not_tell_its_size(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p") as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        batch = next(private.batches(data()))
        assert repr(batch) == "Batch(number=1, used=False)"
        private.step(batch)
        assert all(value.grad is None for value in net.parameters())


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (torch.nn.CrossEntropyLoss(), "one value per image"),
        (lambda out, y: LOSS(out, y)[:-1], "one value per image"),
        (lambda out, y: 3.0, "one value per image"),
    ],
)
def test_a_loss_that_is_not_per_image_is_refused(tmp_path: Path, loss: Any, says: str) -> None:
    net = model()
    with run_at(tmp_path / "p", rate=1, public_size=0) as run:
        with pytest.raises(InvalidRequest, match=says):
            next(training.private(net, loss, optimizer=sgd(net), run=run).batches(data()))
        private = training.private(net, loss, optimizer=sgd(net), run=run, check=False)
        batch = next(private.batches(data()))
        with pytest.raises(InvalidRequest, match=says):
            private.step(batch)


def test_a_loss_that_couples_images_is_refused_before_the_first_step(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p") as run:
        private = training.private(net, lambda out, y: LOSS(out, y) / y.sum(), optimizer=sgd(net), run=run)
        with pytest.raises(InvalidRequest, match="one image moves"):
            next(private.batches(data()))
        assert run.begun == 0


def test_an_optimiser_of_other_parameters_is_refused(tmp_path: Path) -> None:
    net, other = model(), model()
    with run_at(tmp_path / "p") as run:
        for wrong, says in (
            (sgd(other), "not the model's"),
            (torch.optim.SGD(list(net.parameters())[:1], lr=1.0), "not in the optimiser"),
        ):
            with pytest.raises(InvalidRequest, match=says):
                training.private(net, LOSS, optimizer=wrong, run=run)


def test_weights_in_half_precision_are_refused(tmp_path: Path) -> None:
    net = model().bfloat16()
    with (
        run_at(tmp_path / "p") as run,
        pytest.raises(InvalidRequest, match=r"'0\.weight' is torch\.bfloat16"),
    ):
        training.private(net, LOSS, optimizer=sgd(net), run=run)


def test_an_augmentation_that_mixes_images_is_refused_before_any_step(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p") as run:
        private = training.private(
            net, LOSS, optimizer=sgd(net), run=run, augment=lambda x: (x + x.flip(0)) / 2
        )
        with pytest.raises(InvalidRequest, match="mixes images"):
            next(private.batches(data()))
        assert run.begun == 0


def test_frozen_parameters_stay_and_a_stale_gradient_is_not_stepped_on(tmp_path: Path) -> None:
    net = model()
    net[0].requires_grad_(False)
    frozen = net[0].weight.clone()
    images, labels = data()
    LOSS(net(images), labels).sum().backward()  # what somebody left behind
    with run_at(tmp_path / "p", seed=3) as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        before = weights(net)
        private.step(next(private.batches((images, labels))))
        assert torch.equal(net[0].weight, frozen)
        assert (weights(net) - before).abs().max() < 1


def test_data_that_go_into_a_buffer_are_noticed(tmp_path: Path) -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model()
            self.register_buffer("seen", torch.zeros(6))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen += images.detach().sum(0)
            return self.inner(images)

    net = Counting()
    with run_at(tmp_path / "p", rate=1, public_size=0) as run:
        private = Private(net, LOSS, optimizer=sgd(net), run=run, engine=SlowEngine(net))
        with pytest.raises(InvalidRequest, match="buffer 'seen'"):
            private.step(next(private.batches(data())))


def test_losses_are_not_told_unless_debugging_was_asked_for(tmp_path: Path) -> None:
    for debug in (False, True):
        told: list[training.Progress] = []
        net = model()
        with run_at(tmp_path / "p", insecure_debug=debug, on_step=[told.append], steps=4) as run:
            private = training.private(net, LOSS, optimizer=sgd(net), run=run)
            for batch in private.batches(data()):
                private.step(batch)
        assert [one.step for one in told] == [1, 2, 3, 4]
        assert all((one.loss is not None) == debug for one in told)
        assert [one.epsilon for one in told] == sorted(one.epsilon for one in told)
        assert 0 < told[0].epsilon <= told[-1].epsilon <= run.planned.price
        assert ("insecure_debug" in str(run.receipt.body["guarantee"]["limits"])) == debug


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_any_optimiser_steps_on_the_noisy_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    quiet(monkeypatch)
    net, twin = model(), model()
    images, labels = data()
    with run_at(tmp_path / "p", rate=1, public_size=0, expected_batch=COUNT, clip=20, steps=3) as run:
        private = training.private(
            net, LOSS, optimizer=getattr(torch.optim, kind)(net.parameters(), lr=0.1), run=run
        )
        for batch in private.batches((images, labels)):
            private.step(batch)
    plain = getattr(torch.optim, kind)(twin.parameters(), lr=0.1)
    for _ in range(3):
        plain.zero_grad()
        LOSS(twin(images), labels).mean().backward()
        plain.step()
    assert torch.allclose(weights(net), weights(twin), atol=2e-3)


def test_the_average_follows_and_half_precision_runs(tmp_path: Path) -> None:
    net = model()
    with run_at(tmp_path / "p", precision="bfloat16") as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run, ema=0.5)
        for batch in private.batches(data()):
            private.step(batch)
        now = weights(net)
        assert private.ema is not None
        with private.ema.applied(net):
            assert not torch.equal(weights(net), now)
        assert torch.equal(weights(net), now)
        assert now.isfinite().all()


def test_datasets_with_items_are_sampled_too(tmp_path: Path) -> None:
    images, labels = data()

    class Items:
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return images[index], int(labels[index])

    nets = []
    for source in (Items(), (images, labels), (images.numpy(), labels.numpy())):
        net = model()
        with run_at(tmp_path / "p", seed=9) as run:
            private = training.private(net, LOSS, optimizer=sgd(net), run=run)
            for batch in private.batches(source):
                private.step(batch)
        nets.append(weights(net))
    assert torch.equal(nets[0], nets[1])
    assert torch.equal(nets[0], nets[2])
    with run_at(tmp_path / "p") as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        for wrong, says in ((iter([1]), "stream"), ((images, labels[:3]), "have 3 targets")):
            with pytest.raises(InvalidRequest, match=says):
                next(private.batches(wrong))


def test_a_rank_without_the_run_is_refused_alone() -> None:
    with pytest.raises(InvalidRequest, match="rank 0"):
        training.private(model(), LOSS, optimizer=sgd(model()), run=None)


def test_a_team_shares_out_units_whole() -> None:
    from sfumato.training.team import Team

    sample = Sample(np.arange(7), np.array([0, 0, 1, 2, 2, 3, 4]))
    parts = [Team(rank, 2).part(sample) for rank in range(2)]
    assert parts[0].images.tolist() == [0, 1, 3, 4, 6]
    assert parts[0].units.tolist() == [0, 0, 1, 1, 2]
    assert parts[1].images.tolist() == [2, 5]
