"""What the backward computes again: the same gradients, and less that is kept for them."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, by_engine, by_loop, difference  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.engine import Engine, again  # noqa: E402
from sfumato.training.engine.again import Recipes  # noqa: E402

X = torch.randn(5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """Two linear layers with something between."""

    def __init__(self, between: Callable[[Tensor], Tensor], first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one = nn.Linear(6, 8).double().requires_grad_(first)
        self.two = nn.Linear(8, 3).double()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.between(self.one(x)))


def taken(between: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch, first: bool = True) -> int:
    """Return how many recipes were taken, after comparing with plain autograd."""
    found = []
    of = Recipes.of

    def counted(self: Recipes, tensor: Tensor) -> object:
        found.append(of(self, tensor))
        return found[-1]

    monkeypatch.setattr(Recipes, "of", counted)
    model = Net(between, first)
    assert difference(by_engine(model, X), by_loop(model, X)) < EXACT[torch.float64]
    return sum(recipe is not None for recipe in found)


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "nn.GELU": nn.GELU(),
    "no dropout": lambda x: F.dropout(F.gelu(x), 0.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_computed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(ACTIVATIONS[name], monkeypatch)


def test_layer_norm_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(nn.LayerNorm(8).double(), monkeypatch)


def half(x: Tensor) -> Tensor:
    y = F.gelu(x)
    y.mul_(0.5)
    return y


def shifted(x: Tensor) -> Tensor:
    y = F.gelu(x)
    return y + 1


@pytest.mark.parametrize("between", [half, shifted, lambda x: F.silu(x, inplace=True), F.relu])
def test_what_was_written_to_since_is_kept(
    between: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not taken(between, monkeypatch)


def test_an_input_that_nothing_keeps_may_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(x: Tensor) -> Tensor:
        y = F.gelu(x)
        if not x.requires_grad:
            x.zero_()
        return y

    assert not taken(written, monkeypatch, first=False)


def test_two_uses_and_a_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()

        def forward(self, x: Tensor) -> Tensor:
            y = F.gelu(self.one(x))
            return self.two(y) + self.two(self.one(y)) * y

    model = Twice()
    assert difference(by_engine(model, X), by_loop(model, X)) < EXACT[torch.float64]


def test_a_wrong_recipe_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "KEEP_INPUT", frozenset({F.gelu}))
    note = Recipes.note

    def wrong(self: Recipes, func: Callable[..., Tensor], args: object, kwargs: object, out: object) -> None:
        note(self, func, args, {"approximate": "tanh"}, out)

    monkeypatch.setattr(Recipes, "note", wrong)
    with pytest.raises(InvalidRequest, match=r"two\.weight"):
        by_engine(Net(F.gelu), X)


@pytest.mark.parametrize("computed_again", [True, False])
def test_an_output_is_let_go_in_the_forward_pass(
    computed_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[weakref.ref[Tensor]] = []

    def between(x: Tensor) -> Tensor:
        y = F.gelu(x)
        outputs.append(weakref.ref(y))
        return y

    model, gone = Net(between), []

    def losses() -> Tensor:
        out = model(X).square().sum((1, 2))
        gone.append(outputs[-1]() is None)
        return out

    if not computed_again:
        monkeypatch.setattr(Recipes, "of", lambda self, tensor: None)
    Engine(model, verify=False).gradients(losses)
    assert gone == [computed_again]


def test_no_recipe_outlives_its_tensor() -> None:
    recipes = Recipes()
    x = torch.ones(3, requires_grad=True)
    y = F.gelu(x)
    recipes.enter(y, x, F.gelu)
    assert recipes.of(y) is not None
    assert recipes.of(x) is None
    del y
    assert not len(recipes._found)
