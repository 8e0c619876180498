"""Max pooling by shifted rows: PyTorch's numbers and gradients, and no way from image to image."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

import torch.nn.functional as F  # noqa: E402, N812
from gradient_loop import EXACT, same  # noqa: E402
from torch import nn  # noqa: E402

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.engine import Engine  # noqa: E402
from sfumato.training.engine.layers import pool  # noqa: E402

WINDOWS = [(2, 1), (2, 2), (3, 1), (3, 2), ((1, 3), (1, 1)), ((3, 1), (2, 1)), ((2, 3), (1, 2)), (1, 1)]


def picture(*shape: int, dtype: torch.dtype = torch.float64, ties: bool = False) -> torch.Tensor:
    torch.manual_seed(len(shape) + shape[-1])
    x = torch.randn(shape, dtype=dtype)
    return (x.mul(2).round() if ties else x).requires_grad_()


def both(x: torch.Tensor, window: object, stride: object) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    out = []
    for way in (F.max_pool2d, pool.max_pool):
        y = way(x, window, stride)
        assert y is not None
        torch.manual_seed(1)
        (dx,) = torch.autograd.grad(y, x, torch.randn(y.shape).to(y))
        out.append([y.detach(), dx])
    return out[0], out[1]


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
@pytest.mark.parametrize("ties", [False, True])
def test_numbers_and_gradients_are_those_of_pytorch(window: object, stride: object, ties: bool) -> None:
    for shape in [(3, 2, 7, 9), (1, 1, 3, 3), (5, 3, 8, 4)]:
        expected, found = both(picture(*shape, ties=ties), window, stride)
        assert torch.equal(expected[0], found[0])
        assert torch.allclose(expected[1], found[1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_agree_too(dtype: torch.dtype) -> None:
    expected, found = both(picture(4, 3, 6, 6, dtype=dtype, ties=True), 2, 1)
    assert torch.equal(expected[0], found[0])
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    assert torch.allclose(expected[1].float(), found[1].float(), rtol=tolerance, atol=tolerance)


def test_a_batch_in_parts_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CACHE", 500)
    expected, found = both(picture(7, 2, 6, 5, ties=True), 3, 1)
    assert torch.equal(expected[0], found[0])
    assert torch.allclose(expected[1], found[1], atol=1e-14)


def test_channels_last_and_views_agree() -> None:
    base = picture(4, 3, 8, 8)
    for x in (base.detach().to(memory_format=torch.channels_last), base.detach()[:, :, ::2, 1:]):
        expected, found = both(x.requires_grad_(), 2, 1)
        assert torch.equal(expected[0], found[0])
        assert torch.allclose(expected[1], found[1], atol=1e-14)


def test_an_image_that_is_not_finite_moves_no_other() -> None:
    x = picture(3, 2, 6, 6).detach()
    y = pool.max_pool(x.requires_grad_(), 2, 1)
    (clean,) = torch.autograd.grad(y, x, torch.ones_like(y))
    for bad in (float("nan"), float("inf"), -float("inf")):
        spoiled = x.detach().clone()
        spoiled[1] = bad
        spoiled.requires_grad_()
        y = pool.max_pool(spoiled, 2, 1)
        g = torch.ones_like(y)
        g[1] = bad
        (dx,) = torch.autograd.grad(y, spoiled, g)
        assert torch.equal(dx[::2], clean[::2])
        assert not bool(dx[1].isfinite().all())


@pytest.mark.parametrize(
    "more",
    [
        {"padding": 1},
        {"ceil_mode": True},
        {"dilation": 2},
        {"return_indices": True},
        {"kernel_size": 4},
        {"kernel_size": 9},
        {"stride": 3},
    ],
)
def test_what_is_not_known_is_left_to_pytorch(more: dict[str, object]) -> None:
    assert pool.max_pool(picture(2, 2, 8, 8), **({"kernel_size": 2, "stride": 1} | more)) is None


def test_a_vmap_of_the_callers_is_left_to_pytorch() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    engine = Engine(model)
    x = torch.randn(4, 1, 1, 4, 4)

    def losses() -> torch.Tensor:
        y = torch.vmap(lambda image: F.max_pool2d(image, 2, 1))(x)
        return model(y.flatten(1).sum(1, keepdim=True)).square().sum(1)

    assert engine.gradients(losses).units == 4


def test_the_engine_pools_so_and_its_rows_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(4, 3, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ).double()
    x = torch.randn(6, 1, 9, 9, dtype=torch.float64)
    seen: list[object] = []
    some = pool.some
    monkeypatch.setattr(pool, "some", lambda *args: (seen.append(1), some(*args))[1])
    assert same(model, x) < EXACT[torch.float64]
    assert seen


def test_pooling_that_passes_from_image_to_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check's own pass pools in the same way, and still sees it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, stride=1), nn.Flatten())
    x = torch.randn(4, 1, 6, 6)
    some = pool.some

    def leaking(dx: torch.Tensor, *rest: object) -> None:
        some(dx, *rest)  # type: ignore[arg-type]
        dx.copy_(dx.roll(len(dx) // 4))

    assert Engine(model).gradients(lambda: model(x).square().sum(1)).units == 4
    monkeypatch.setattr(pool, "some", leaking)
    with pytest.raises(InvalidRequest, match="not the one"):
        Engine(model).gradients(lambda: model(x).square().sum(1))
