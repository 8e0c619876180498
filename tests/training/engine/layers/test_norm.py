"""Norms over one image, and batch norm by frozen statistics."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402

NORMS = {
    "group": lambda: nn.GroupNorm(3, 6),
    "instance": lambda: nn.InstanceNorm2d(6, affine=True),
    "layer, one dimension": lambda: nn.LayerNorm(3),
    "layer, all": lambda: nn.LayerNorm([6, 5, 3]),
    "root": lambda: nn.RMSNorm([5, 3], eps=0.1),
    "root, without eps": lambda: nn.RMSNorm(3),
    "frozen batch": lambda: nn.BatchNorm2d(6).eval(),
}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def started(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 2)
    return model.double()


@pytest.mark.parametrize("units", [None, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 2])])
@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str, units: Tensor | None) -> None:
    model = started(NORMS[name]())
    assert same(model, random(4, 6, 5, 3), units=units) < EXACT[torch.float64]


@pytest.mark.parametrize("name", NORMS)
def test_norms_pass_the_gradient_on(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(6, 6, 1), started(NORMS[name]()), nn.Conv2d(6, 2, 1)).double()
    assert same(model, random(4, 6, 5, 3)) < EXACT[torch.float64]


@pytest.mark.parametrize("name", NORMS)
def test_a_frozen_norm_is_left_alone(name: str) -> None:
    norm = started(NORMS[name]()).requires_grad_(False)
    assert same(nn.Sequential(nn.Conv2d(6, 6, 1), norm).double(), random(4, 6, 5, 3)) < EXACT[torch.float64]


def test_norms_without_positions() -> None:
    for norm in (nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.RMSNorm(6), nn.BatchNorm1d(6).eval()):
        model = nn.Sequential(nn.Linear(5, 6), norm, nn.Linear(6, 2)).double()
        assert same(model, random(4, 5)) < EXACT[torch.float64]
