"""Convolutions: every kernel, against the loop, over strides, paddings, dilations, groups and units."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import EXACT, by_engine, by_loop, difference, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sfumato.training.engine.layers import conv, gram, shifts, unfold  # noqa: E402
from sfumato.training.engine.layers.geometry import Geometry  # noqa: E402

KERNELS = (
    *("groups", "groups, not kept", "loop", "unfold", "unfold, not kept", "pixels", "pixels, not kept"),
    *("unfold gram", "shifts"),
)
UNITS = {
    "images": None,
    "pairs": torch.tensor([0, 0, 1, 1, 2, 2]),
    "ragged": torch.tensor([3, 7, 3, 3, 1, 7]),
}
GRID = [
    (kernel, stride, padding, dilation, groups)
    for kernel in (1, 2, 3)
    for stride in (1, 2, 3)
    for padding in (0, 1)
    for dilation in (1, 2)
    for groups in (1, 2)
]


@pytest.fixture(autouse=True)
def _every_kernel_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifts, "WORTH", 1e9)
    monkeypatch.setattr(unfold, "WORTH", 1e9)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def layer(
    kind: type[nn.Module], *args: object, dtype: torch.dtype = torch.float64, **more: object
) -> nn.Module:
    torch.manual_seed(1)
    return kind(*args, **more).to(dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel_is_exact_over_the_grid(name: str) -> None:
    x = random(6, 4, 7, 8)
    for settings in GRID:
        model = layer(nn.Conv2d, 4, 6, *settings)
        assert same(model, x, kernel=name) < EXACT[torch.float64], settings


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", KERNELS)
def test_each_kernel_adds_up_a_unit_before_its_length_is_taken(name: str, units: str) -> None:
    for settings in ((3, 1, 1), (3, 2, 1, 1, 2), (4, 2, 0)):
        model = layer(nn.Conv2d, 4, 6, *settings)
        how = {"units": UNITS[units], "kernel": name}
        assert same(model, random(6, 4, 7, 8), **how) < EXACT[torch.float64], settings


@pytest.mark.parametrize("name", KERNELS)
def test_float32_is_near(name: str) -> None:
    model = layer(nn.Conv2d, 8, 16, 3, 1, 1, dtype=torch.float32)
    assert same(model, random(4, 8, 8, 8, dtype=torch.float32), kernel=name) < EXACT[torch.float32]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (layer(nn.Conv1d, 4, 6, 3, 2, 1, 2, 2), (5, 4, 11)),
        (layer(nn.Conv3d, 2, 4, (2, 1, 3), (1, 2, 1), 1), (5, 2, 4, 5, 3)),
        (layer(nn.Conv2d, 4, 4, 3, groups=4, padding=1), (5, 4, 6, 6)),
        (layer(nn.Conv2d, 3, 6, (4, 2), (4, 2)), (5, 3, 8, 9)),
        (layer(nn.Conv2d, 3, 6, (3, 4), padding="same"), (5, 3, 8, 9)),
        (layer(nn.Conv2d, 3, 6, 3, padding="valid"), (5, 3, 8, 9)),
        (layer(nn.Conv2d, 3, 6, 3, padding=1, padding_mode="circular"), (5, 3, 8, 9)),
        (layer(nn.Conv2d, 3, 6, 3, padding=2, padding_mode="reflect", bias=False), (5, 3, 8, 9)),
    ],
    ids=["1d", "3d", "depthwise", "patches", "same", "valid", "circular", "reflect"],
)
def test_other_convolutions(model: nn.Module, shape: tuple[int, ...]) -> None:
    for name in KERNELS:
        assert same(model, random(*shape), kernel=name) < EXACT[torch.float64], name


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (layer(nn.ConvTranspose1d, 4, 6, 3, 2, 1, 1, 2), (5, 4, 7)),
        (layer(nn.ConvTranspose2d, 4, 6, 3, 2, 1, 1, 2, dilation=2), (5, 4, 5, 4)),
        (layer(nn.ConvTranspose3d, 2, 4, 2, 1, 1), (5, 2, 4, 5, 3)),
    ],
    ids=["1d", "2d", "3d"],
)
def test_transposed_convolutions(model: nn.Module, shape: tuple[int, ...]) -> None:
    for name in ("groups", "groups, not kept", "loop"):
        assert same(model, random(*shape), kernel=name) < EXACT[torch.float64], name


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_either_may_be_frozen(frozen: str) -> None:
    model = nn.Sequential(layer(nn.Conv2d, 3, 4, 3), layer(nn.Conv2d, 4, 4, 3))
    getattr(model[0], frozen).requires_grad_(False)
    assert same(model, random(4, 3, 7, 7)) < EXACT[torch.float64]


# Wrong twins: the same assertion finds each.


def test_a_table_without_its_cross_terms_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = layer(nn.Conv2d, 4, 6, 3, 1, 1), random(6, 4, 7, 8)
    monkeypatch.setattr(gram, "squares", lambda x, g: (x.square().sum(2) * g.square().sum(2)).sum(1))
    with pytest.raises(ValueError, match="plain autograd"):
        same(model, x, kernel="unfold gram")


def test_a_dilation_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = layer(nn.Conv2d, 4, 6, 2, 1, 0, 2), random(6, 4, 7, 8)
    real = shifts.places
    monkeypatch.setattr(
        shifts,
        "places",
        lambda how: real(Geometry(how.weight, how.stride, how.padding, (1, 1), how.groups)),
    )
    with pytest.raises(ValueError, match="the norm"):
        same(model, x, kernel="shifts")


def test_wrong_twins_are_far_from_the_loop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.training.engine import check

    monkeypatch.setattr(check, "compare", lambda *_: None)
    model, x = layer(nn.Conv2d, 4, 6, 2, 1, 0, 2), random(6, 4, 7, 8)
    expected = by_loop(model, x)
    assert difference(by_engine(model, x, kernel="shifts"), expected) < 1e-12
    real = shifts.places
    monkeypatch.setattr(
        shifts,
        "places",
        lambda how: real(Geometry(how.weight, how.stride, how.padding, (1, 1), how.groups)),
    )
    assert difference(by_engine(model, x, kernel="shifts"), expected) > 1e-3
    ungrouped = layer(nn.Conv2d, 4, 6, 3, groups=2)
    expected = by_loop(ungrouped, x)
    assert difference(by_engine(ungrouped, x, kernel="groups"), expected) < 1e-12
    monkeypatch.setattr(conv, "folded", lambda x, g, how: torch.roll(_folded(x, g, how), 1, 0))
    assert difference(by_engine(ungrouped, x, kernel="groups"), expected) > 1e-3


_folded = conv.folded
