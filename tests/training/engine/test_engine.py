"""Mixed precision, choices and the memory rule, random numbers, and whole models."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, by_engine, by_loop, difference  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from sfumato.training.engine import Clipping, Engine, choose  # noqa: E402
from sfumato.training.engine.grouping import grouping_of  # noqa: E402
from sfumato.training.engine.layers.linear import LinearTerm  # noqa: E402
from sfumato.training.models import build  # noqa: E402

#: name -> settings, and the side of the picture: small ones, and as they are trained.
SMALL = {
    "mnist-cnn": ({"channels": 1, "size": 28}, 6),
    "wrn-16-4": ({"size": 16}, 3),
    "resnet18-gn": ({"size": 16}, 2),
    "vit-tiny": ({"size": 32}, 3),
}
WHOLE = {
    "mnist-cnn": ({"channels": 1, "size": 28}, 16),
    "wrn-16-4": ({"size": 32}, 8),
    "resnet18-gn": ({"size": 32}, 4),
    "vit-tiny": ({"size": 224}, 3),
}


def classes(model: nn.Module, x: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), torch.arange(len(x)) % 10, reduction="none")


def apart(name: str, settings: dict[str, int], images: int, dtype: torch.dtype) -> float:
    torch.manual_seed(0)
    model = build(name, **settings).to(dtype)
    side = settings["size"]
    x = torch.randn(images, settings.get("channels", 3), side, side, dtype=dtype)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return functional.cross_entropy(model(x), torch.ones(len(x), dtype=torch.long), reduction="none")

    expected = by_loop(model, x, loss=loss, bound=0.1)
    return difference(by_engine(model, x, loss=loss, bound=0.1), expected)


@pytest.mark.parametrize("name", SMALL)
def test_whole_models_are_exact(name: str) -> None:
    settings, images = SMALL[name]
    assert apart(name, settings, images, torch.float64) < EXACT[torch.float64]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_are_exact_at_their_own_size(name: str, dtype: torch.dtype) -> None:
    settings, images = WHOLE[name]
    assert apart(name, settings, images, dtype) < EXACT[dtype]


def test_half_precision_gives_norms_in_single() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 4),
        nn.LayerNorm(4),
    )
    x = torch.randn(4, 3, 8, 8)

    def losses() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        return out.float().square().sum(1) + out.float().sin().sum(1)

    for bound in (1e-2, 1e9):
        out = Engine(model, clipping=Clipping("flat", bound)).gradients(losses)
        wide = Engine(model, clipping=Clipping("flat", bound)).gradients(
            lambda: model(x).square().sum(1) + model(x).sin().sum(1)
        )
        assert out.norms.dtype == torch.float32
        assert torch.allclose(out.norms, wide.norms, rtol=0.05)
        for name, value in wide.sum.items():
            assert out.sum[name].dtype == torch.float32
            assert (out.sum[name] - value).norm() <= 0.1 * value.norm() + 1e-3 * min(bound, 1)
    # What is summed is what was measured: one image alone has exactly its clipped length.
    alone = Engine(model, clipping=Clipping("flat", 1e-2), verify=False)
    x = x[:1]
    found = alone.gradients(losses)
    length = torch.stack([value.double().square().sum() for value in found.sum.values()]).sum().sqrt()
    assert abs(float(length) - 1e-2 * (1 - 2**-10)) < 1e-6


def test_a_model_in_half_precision_is_summed_in_single() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    x = torch.randn(4, 5, 6)
    wide = Engine(model).gradients(lambda: model(x).square().sum((1, 2)))
    half = copy.deepcopy(model).bfloat16()
    out = Engine(half).gradients(lambda: half(x.bfloat16()).float().square().sum((1, 2)))
    assert {value.dtype for value in out.sum.values()} == {torch.float32}
    assert torch.allclose(out.norms, wide.norms, rtol=0.1)


def test_random_numbers_are_drawn_as_without_the_comparison() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 2))
    x = torch.randn(5, 6)
    found = []
    for verify in (True, False):
        torch.manual_seed(7)
        found.append(Engine(model, verify=verify).gradients(lambda: model(x).square().sum(1)).sum)
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-6)


def test_gradients_that_are_too_large_are_not_kept() -> None:
    term = LinearTerm(torch.randn(8, 2, 64), torch.randn(8, 2, 64))
    names = {kernel.name for kernel in choose.candidates(term, 64 * 64, grouping_of(8, None, 1))}
    assert names == {"gram"}
    narrow = LinearTerm(torch.randn(8, 200, 8), torch.randn(8, 200, 8))
    kept = {kernel.name for kernel in choose.candidates(narrow, 64, grouping_of(8, None, 1)) if kernel.keeps}
    assert kept == {"bmm"}


def test_a_choice_is_made_once() -> None:
    model, x = nn.Linear(9, 13), torch.randn(6, 5, 9)
    engine = Engine(model)
    engine.gradients(lambda: model(x).square().sum((1, 2)))
    before = choose.choices()
    engine.gradients(lambda: model(x).square().sum((1, 2)))
    assert choose.choices() == before
    assert any(key[:4] == ("linear", 5, 9, 13) for key in before)


def test_a_model_can_be_copied_and_trained_as_before() -> None:
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    Engine(model).gradients(lambda: model(x).sum(1))
    twin = copy.deepcopy(model)
    twin(x).sum().backward()
    assert twin.weight.grad is not None
