"""Raw parameters, layers that are used again, and anything else that meets a parameter."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, by_loop, curved, difference, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sfumato.training.engine import Clipping, Engine  # noqa: E402


class Everything(nn.Module):
    """What vision models do with raw parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.places = nn.Parameter(torch.randn(1, 16, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.scale = nn.Parameter(torch.randn(8))
        self.temperature = nn.Parameter(torch.tensor(0.3))
        self.slope = nn.PReLU(17)
        self.again = nn.Linear(8, 8)
        self.parts = nn.Parameter(torch.randn(2, 8, 8))
        self.shared = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).flatten(2).transpose(1, 2) + self.places
        y = torch.cat([self.token.expand(len(x), -1, -1), y], 1)
        y = y + self.scale * self.again(self.shared(y))
        y = self.slope(y * self.temperature.exp())
        y = self.again(self.shared(y))
        for weight in self.parts.unbind():
            y = nn.functional.linear(y, weight).tanh()
        y = y * 2
        y += self.scale
        return torch.where(y > 0, y, self.scale)


@pytest.mark.parametrize("units", [None, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 2])])
def test_everything(units: Tensor | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    assert same(Everything().double(), x, units=units) < EXACT[torch.float64]


def test_a_batch_of_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert same(Everything().double(), x) < EXACT[torch.float64]


class Twice(nn.Module):
    """One convolution used three times, at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.conv(x).tanh())
        return nn.functional.avg_pool2d(y, 2).sin() + self.conv(nn.functional.avg_pool2d(x, 2))


def test_a_layer_used_again_is_one_gradient() -> None:
    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    expected = by_loop(model, x)
    out = Engine(model, clipping=Clipping("flat", 1.0))
    assert difference(out.gradients(lambda: curved(model, x)), expected) < EXACT[torch.float64]


def test_weight_norm_and_other_weights_that_are_computed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        nn.Flatten(),
        nn.utils.parametrizations.weight_norm(nn.Linear(16, 2)),
    ).double()
    x = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    named = dict(model.named_parameters())
    found = Engine(model, clipping=Clipping("flat", 1e9)).gradients(lambda: model(x).sin().sum(1))
    expected = torch.autograd.grad(model(x).sin().sum(), list(named.values()))
    for name, grad in zip(named, expected, strict=True):
        assert torch.allclose(found.sum[name], grad, rtol=1e-12, atol=1e-12)


def test_frozen_parameters_cost_nothing_and_grad_is_not_touched() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    x = torch.randn(3, 4)
    out = Engine(model).gradients(lambda: model(x).square().sum(1))
    assert set(out.sum) == {"2.weight", "2.bias"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_parameter_that_is_not_used_has_a_sum_of_zero() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})
    x = torch.randn(3, 4)
    out = Engine(model).gradients(lambda: model["a"](x).square().sum(1) + 0 * model["b"](x).detach().sum(1))
    assert out.sum["b.weight"].abs().sum() == 0
