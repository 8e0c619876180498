"""The coupling probe finds every planted leak, and leaves models without one alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from leaks import CLEAN, LEAKS, SIDE, Apply, Leak, batch, entropy, net, planted  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.coupling import check, layers, made_up, probe  # noqa: E402
from sfumato.training.models import CATALOGUE, build  # noqa: E402


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_a_planted_leak_is_caught(leak: Leak) -> None:
    found = probe(*planted(leak))
    assert {one.kind for one in found.findings} & leak.kinds, found
    with pytest.raises(InvalidRequest, match="Ways out"):
        found.refuse()


def test_many_kinds_are_planted() -> None:
    assert len(LEAKS) >= 10
    assert {kind for leak in LEAKS for kind in leak.kinds} >= {
        "layer", "output", "loss", "gradient", "memory", "state", "batch size",
    }  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_a_layer_without_a_leak_passes(name: str) -> None:
    model = net(CLEAN[name]())
    found = probe(model, entropy(model), batch())
    assert found.clean, found
    found.refuse()


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_the_models_of_the_catalogue_pass(name: str) -> None:
    channels, size = (1, 28) if name == "mnist-cnn" else (3, 16)
    model = build(name, channels=channels, size=size)
    found = probe(model, entropy(model), batch(3, channels, size))
    assert found.clean, found
    assert not found.notes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_pass(dtype: torch.dtype) -> None:
    model = net(nn.GroupNorm(2, 8)).to(dtype)
    x, y = batch()
    assert probe(model, entropy(model), (x.to(dtype), y)).clean


def test_the_layer_is_named() -> None:
    model = net(Apply(lambda x: x - x.mean(0)))
    (first, *_) = probe(model, entropy(model), batch()).findings
    assert first.kind == "output"
    assert "output of 1 (Apply)" in first.says


def test_the_model_is_left_as_it_was() -> None:
    model = net(nn.BatchNorm2d(8), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    probe(model, entropy(model), batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_batchnorm_in_eval_mode_passes_only_where_it_stays_there() -> None:
    model = net(nn.BatchNorm2d(8)).eval()
    assert not probe(model, entropy(model), batch()).clean  # training would put it into train mode
    assert probe(model, entropy(model), batch(), train=False).clean
    assert not list(layers(model, train=False))


def test_a_dict_of_inputs_is_probed_too() -> None:
    model = net()

    def losses(b: dict[str, Any]) -> Tensor:
        out = model(b["image"] * b["weight"].mean())
        return functional.cross_entropy(out, b["about"][0], reduction="none")

    x, y = batch()
    given = OrderedDict(image=x, weight=torch.arange(1.0, 5.0), about=[y], name="not a tensor")
    assert not probe(model, losses, given).clean


def test_pictures_of_bytes_are_changed_too() -> None:
    model = net(Apply(lambda x: x - x.mean(0)))
    x, y = batch()
    given = ((x * 20 + 128).clamp(0, 255).to(torch.uint8), y)
    found = probe(
        model, lambda b: functional.cross_entropy(model(b[0].float() / 255), b[1], reduction="none"), given
    )
    assert {one.kind for one in found.findings} >= {"output", "loss"}


def test_batches_of_another_form_bring_their_own_changes() -> None:
    """As a detector's: boxes in one list, each with the number of its image."""
    model = net()

    def losses(b: dict[str, Tensor], share: bool) -> Tensor:
        boxes = torch.zeros(len(b["image"])).index_add_(0, b["whose"], b["boxes"])
        each = model(b["image"]).square().sum(1) + boxes
        return each / b["boxes"].sum() if share else each

    def brighter(b: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        boxes = torch.where(b["whose"] == index, b["boxes"] + 5, b["boxes"])
        return b | {"boxes": boxes}

    x, _ = batch()
    given = {"image": x, "whose": torch.tensor([0, 0, 1, 2, 3]), "boxes": torch.ones(5)}
    for share in (False, True):
        found = probe(
            model,
            lambda b, s=share: losses(b, s),
            given,
            changes={"other boxes": brighter},
            drop=None,
            images=4,
        )
        assert found.clean is not share


def test_randomness_from_elsewhere_is_refused() -> None:
    generator = torch.Generator().manual_seed(1)
    model = net(Apply(lambda x: x * torch.empty(len(x), 1, 1, 1).uniform_(generator=generator)))
    assert [one.kind for one in probe(model, entropy(model), batch()).findings] == ["state"]


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (lambda m: lambda b: functional.cross_entropy(m(b[0]), b[1]), r"one value per image.*shape \(\)"),
        (lambda m: lambda b: m(b[0]), r"shape \(4, 3\)"),
        (lambda m: lambda b: 3.0, "got float"),
    ],
)
def test_losses_that_are_not_one_per_image_are_refused(losses: Any, says: str) -> None:
    model = net()
    with pytest.raises(InvalidRequest, match=says):
        probe(model, losses(model), batch())


def test_what_cannot_be_probed_is_refused() -> None:
    model = net()
    with pytest.raises(InvalidRequest, match="at least 3 images"):
        probe(model, entropy(model), batch(2))
    with pytest.raises(InvalidRequest, match="one row per image"):
        probe(model, entropy(model), (batch(4)[0], batch(3)[1]))
    lazy = net(nn.LazyConv2d(8, 1))
    with pytest.raises(InvalidRequest, match="has no size yet"):
        probe(lazy, entropy(lazy), batch())


def test_an_error_of_the_model_is_not_hidden() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="channels"):
        probe(model, entropy(model), batch(channels=1))


def test_a_model_with_nothing_to_train_is_probed_forwards() -> None:
    model = net(Apply(lambda x: x - x.mean(0))).requires_grad_(False)
    assert not probe(model, entropy(model), batch()).clean


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def test_a_check_makes_images_up_and_looks_at_none() -> None:
    nothing = torch.full((1, 3, SIDE, SIDE), float("nan")), torch.tensor([77])
    check(net(nn.GroupNorm(2, 8)), loss_of, *nothing)
    with pytest.raises(InvalidRequest, match="one image moves"):
        check(net(Apply(lambda x: x - x.mean(0))), loss_of, *nothing)
    with pytest.raises(InvalidRequest, match=r"does not run on made-up images .*check=False"):
        check(net(), loss_of, torch.zeros(1, 4, SIDE, SIDE), torch.tensor([0]))
    check(net(nn.BatchNorm2d(8)), loss_of, ["a picture in another form"], [0])
    with pytest.raises(InvalidRequest, match="BatchNorm2d"):
        check(net(nn.BatchNorm2d(8)), loss_of, *nothing)
    check(net(nn.BatchNorm2d(8)).eval(), loss_of, *nothing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64, torch.bool])
def test_what_is_made_up_differs_from_row_to_row(dtype: torch.dtype) -> None:
    made = made_up(torch.zeros(1, 3, 5, dtype=dtype))
    assert made.shape == (4, 3, 5)
    assert made.dtype == dtype
    assert not torch.equal(made[0], made[1])
