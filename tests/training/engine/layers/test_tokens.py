"""Embeddings, attention and whole transformer layers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402

UNITS = (None, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 2]))


@pytest.fixture
def words() -> Tensor:
    return torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel", ["kept", "kept, not kept", "entries"])
@pytest.mark.parametrize("units", UNITS, ids=["images", "pairs", "ragged"])
@pytest.mark.parametrize("padding", [None, 3, -1])
def test_embedding(words: Tensor, kernel: str, units: Tensor | None, padding: int | None) -> None:
    model = nn.Sequential(nn.Embedding(11, 5, padding_idx=padding), nn.Tanh(), nn.Linear(5, 2)).double()
    assert same(model, words, kernel=kernel, units=units) < EXACT[torch.float64]


class Tied(nn.Module):
    """The table is the last layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.table(x)
        mask = torch.ones(7, 7, dtype=torch.bool).triu(1)
        one, _ = self.attention(y, y, y, need_weights=False)
        padding = x == 3
        padding[:, 0] = False
        two, weights = self.attention(y, y.flip(1), 2 * y, key_padding_mask=padding, attn_mask=mask)
        return self.head(one + two * weights.sum((1, 2))[:, None, None])


@pytest.mark.parametrize("units", UNITS, ids=["images", "pairs", "ragged"])
def test_attention_used_twice_and_a_tied_table(words: Tensor, units: Tensor | None) -> None:
    torch.manual_seed(0)
    assert same(Tied().double(), words, units=units) < EXACT[torch.float64]


class Apart(nn.Module):
    """Queries, keys and values of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x[..., :6], x[..., :5])[0]
        return out


@pytest.mark.parametrize(
    "model",
    [Apart, lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)],
    ids=["widths", "encoder"],
)
def test_transformers(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 7, 8, dtype=torch.float64)
    assert same(model().double(), x) < EXACT[torch.float64]
