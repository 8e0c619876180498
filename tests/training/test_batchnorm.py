"""BatchNorm goes out by one call, and what is left couples nobody."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from leaks import batch, entropy, net  # noqa: E402
from torch import nn  # noqa: E402

from sfumato.core.errors import InvalidRequest, UnknownName  # noqa: E402
from sfumato.training.batchnorm import FrozenBatchNorm, replace_batchnorm  # noqa: E402
from sfumato.training.coupling import layers, probe  # noqa: E402


class Acting(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: it also applies an activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def trained(norm: nn.Module) -> nn.Module:
    """Give a norm statistics, scale and shift, as a pretraining would."""
    norm.train()
    norm(2 + 3 * torch.randn(64, norm.num_features, 5, 5, generator=torch.Generator().manual_seed(2)))
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    return norm


@pytest.mark.parametrize("way", ["group", "freeze"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm2d(8),
        lambda: nn.BatchNorm2d(8, affine=False),
        lambda: nn.BatchNorm2d(8).requires_grad_(False),
        lambda: nn.InstanceNorm2d(8, track_running_stats=True),
    ],
)
def test_nothing_is_coupled_afterwards(way: str, make: object) -> None:
    model = net(make())
    assert not probe(model, entropy(model), batch()).clean
    (done,) = replace_batchnorm(model, way)
    assert done.name == "1"
    assert str(done).startswith(f"1: {done.before} -> {done.after}; {done.why}")
    assert probe(model, entropy(model), batch()).clean
    assert not list(layers(model))


def test_frozen_gives_what_eval_mode_gave() -> None:
    norm = trained(nn.BatchNorm2d(8))
    x, _ = batch(channels=8)
    expected = norm.eval()(x)
    model = nn.Sequential(norm)
    replace_batchnorm(model, "freeze")
    model.train()
    assert torch.equal(model(x), expected)
    assert not model[0].training
    assert sorted(model[0].state_dict()) == sorted(nn.BatchNorm2d(8).state_dict())
    before = model[0].running_mean.clone()
    model(x + 5)
    assert torch.equal(model[0].running_mean, before)


def test_frozen_keeps_its_parameters_for_the_optimiser() -> None:
    model = net(nn.BatchNorm2d(8))
    held = list(model.parameters())
    replace_batchnorm(model, "freeze")
    assert [id(p) for p in model.parameters()] == [id(p) for p in held]
    entropy(model)(batch()).sum().backward()
    assert model[1].weight.grad is not None


def test_group_keeps_scale_and_shift() -> None:
    model = net(trained(nn.BatchNorm2d(8)))
    weight, bias = model[1].weight, model[1].bias
    replace_batchnorm(model)
    assert isinstance(model[1], nn.GroupNorm)
    assert model[1].weight is weight
    assert model[1].bias is bias


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [(8, 32, 2), (64, 32, 16), (256, 32, 32), (13, 32, 1), (3, 32, 1), (64, 8, 8)],
)
def test_groups_divide_the_channels_and_hold_several(channels: int, groups: int, expected: int) -> None:
    model = nn.Sequential(nn.BatchNorm2d(channels))
    replace_batchnorm(model, groups=groups)
    assert model[0].num_groups == expected


def test_vectors_survive_the_grouping() -> None:
    """A group of one number would become zero."""
    model = nn.Sequential(nn.BatchNorm1d(16))
    replace_batchnorm(model)
    assert model(torch.randn(4, 16)).abs().min() > 0


def test_a_layer_used_twice_stays_one_layer() -> None:
    norm = nn.BatchNorm2d(8)
    model = nn.ModuleDict({"a": nn.Sequential(norm), "b": nn.Sequential(norm)})
    assert len(replace_batchnorm(model)) == 1
    assert model["a"][0] is model["b"][0]
    assert isinstance(model["a"][0], nn.GroupNorm)


def test_sync_batchnorm_goes_too() -> None:
    for way, kind in (("group", nn.GroupNorm), ("freeze", FrozenBatchNorm)):
        model = net(nn.SyncBatchNorm(8))
        replace_batchnorm(model, way)
        assert isinstance(model[1], kind)
        assert probe(model, entropy(model), batch()).clean


def test_a_batchnorm_that_does_more_is_frozen_and_not_grouped() -> None:
    model = net(trained(Acting(8)))
    with pytest.raises(InvalidRequest, match="may do more than normalise"):
        replace_batchnorm(model)
    assert isinstance(model[1], Acting)
    replace_batchnorm(model, "freeze")
    assert isinstance(model.train()[1], Acting)
    assert model[1](batch(channels=8)[0]).min() == 0
    assert probe(model, entropy(model), batch()).clean


def test_a_refusal_changes_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8, track_running_stats=False))
    with pytest.raises(InvalidRequest, match="1 keeps no statistics"):
        replace_batchnorm(model, "freeze")
    assert type(model[0]) is nn.BatchNorm2d


def test_statistics_of_a_new_layer_are_told() -> None:
    (done,) = replace_batchnorm(net(nn.BatchNorm2d(8)), "freeze")
    assert "0 and 1, and do nothing" in done.why
    (done,) = replace_batchnorm(net(trained(nn.BatchNorm2d(8))), "freeze")
    assert "do nothing" not in done.why


def test_it_can_be_called_again_copied_and_pickled() -> None:
    model = net(nn.BatchNorm2d(8))
    replace_batchnorm(model, "freeze")
    assert replace_batchnorm(model, "freeze") == replace_batchnorm(model, "group") == []
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not other.train()[1].training


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(UnknownName, match="group"):
        replace_batchnorm(net(), "gropu")
    with pytest.raises(InvalidRequest, match="model itself"):
        replace_batchnorm(nn.BatchNorm2d(8))
    with pytest.raises(InvalidRequest, match="no size yet"):
        replace_batchnorm(net(nn.LazyBatchNorm2d()))
