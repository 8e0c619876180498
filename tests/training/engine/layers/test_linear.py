"""Linear layers over any middle dimensions, raw matrices, and low-rank additions to frozen layers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sfumato.training.engine.layers import gram  # noqa: E402

UNITS = (None, torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([3, 7, 3, 3, 1, 7]))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel", ["bmm", "bmm, not kept", "gram"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 5), (6, 2, 3, 5)], ids=str)
@pytest.mark.parametrize("units", UNITS, ids=["images", "pairs", "ragged"])
def test_linear(kernel: str, shape: tuple[int, ...], units: Tensor | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)).double()
    assert same(model, random(*shape), kernel=kernel, units=units) < EXACT[torch.float64]


class Raw(nn.Module):
    """Products with raw matrices, by every spelling."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = (x @ self.a).tanh()
        y = torch.matmul(y, self.b).tanh()
        return torch.einsum("btd,ed->bte", y, self.b) + x.matmul(self.a)


class LowRank(nn.Module):
    """A frozen layer with a low-rank addition, and one whose weight is put together first."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(5, 6).requires_grad_(False)
        self.down, self.up = nn.Linear(5, 2, bias=False), nn.Linear(2, 6, bias=False)
        self.left, self.right = nn.Parameter(torch.randn(5, 2)), nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x) + self.up(self.down(x))
        return nn.functional.linear(y.tanh(), self.left @ self.right)


@pytest.mark.parametrize("model", [Raw, LowRank])
def test_raw_matrices(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert same(model().double(), random(6, 4, 5)) < EXACT[torch.float64]


def test_positions_that_cancel_keep_their_length() -> None:
    """One pixel everywhere, under slopes that add up to nothing: rounding must not shorten it."""
    x = torch.ones(99, 50, 16) + 1e-4 * torch.randn(99, 50, 16, generator=torch.Generator().manual_seed(0))
    g = torch.randn(99, 50, 8, generator=torch.Generator().manual_seed(1))
    g = g - g.mean(1, keepdim=True)
    true = torch.bmm(g.double().mT, x.double()).flatten(1).square().sum(1)
    assert (gram.squares(x, g) >= true.float() * (1 - 2**-10)).all()
    table = torch.bmm(x, x.mT) * torch.bmm(g, g.mT)
    assert (table.sum((1, 2)) < true.float() * (1 - 2**-10)).any(), "without the pad it is found too short"
