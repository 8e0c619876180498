"""Gradients that are kept in pieces: the same norms and sums, whatever the size of a piece."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, by_engine, by_loop, difference  # noqa: E402
from torch import nn  # noqa: E402

from sfumato.training.engine import parts  # noqa: E402
from sfumato.training.engine.terms import Kept, Pieces, Term  # noqa: E402

ROWS = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def pieces(order: bool = False) -> tuple[Term, Term]:
    turned = (lambda total: total.flip(0)) if order else None
    return Pieces(ROWS.split([3, 3, 1]), turned), Kept(ROWS, turned)


@pytest.mark.parametrize("order", [False, True])
def test_pieces_are_the_whole(order: bool) -> None:
    cut, whole = pieces(order)
    weights = torch.arange(7.0, dtype=torch.float64)
    assert torch.allclose(cut.total(weights), whole.total(weights), rtol=1e-14)
    assert torch.equal(cut.per_image(), ROWS)
    some = torch.tensor([1, 6])
    assert torch.equal(cut.select(some).per_image(), ROWS[some])


def test_bad_rows_are_cleared_in_their_piece() -> None:
    rows = ROWS.clone()
    rows[4] = float("nan")
    bad = ~rows.isfinite().all(1)
    found = Pieces(rows.split(3)).without(bad).total(torch.ones(7, dtype=torch.float64))
    assert torch.allclose(found, ROWS.sum(0) - ROWS[4], rtol=1e-13)


@pytest.mark.parametrize("size", [1, 2**10, 3 * 2**10, 2**30])
@pytest.mark.parametrize("views", [1, 2])
def test_any_size_of_a_piece_gives_the_same(size: int, views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE", size)
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    x = torch.randn(8, 5, 6, dtype=torch.float64)
    found = by_engine(model, x, views=views, kernel="bmm")
    assert difference(found, by_loop(model, x, views=views)) < EXACT[torch.float64]
