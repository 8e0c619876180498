"""The bound: no unit's part is ever longer, by any kind of clipping, in floating point."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from gradient_loop import by_loop, curved, difference  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from sfumato.core.errors import InvalidRequest, UnknownName  # noqa: E402
from sfumato.training.engine import Clipping, Engine  # noqa: E402
from sfumato.training.engine.clip import KINDS, MARGIN  # noqa: E402

SIZES = st.floats(0, 2.0**60, width=32) | st.sampled_from([0.0, 1e-30, 1.0, math.inf, math.nan])


@given(
    kind=st.sampled_from(KINDS),
    bound=st.floats(1e-3, 1e3),
    norms=st.lists(SIZES, min_size=1, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_factor_times_norm_is_within_the_bound(kind: str, bound: float, norms: list[float]) -> None:
    values = torch.tensor(norms, dtype=torch.float32)
    factors = Clipping(kind, bound).factors(values.square())
    parts = factors.double() * values.double()
    finite = values.square().isfinite()
    assert bool((parts[finite] <= bound * MARGIN * (1 + 1e-6)).all())
    assert bool((factors[~finite] == 0).all())


@given(scale=st.floats(-8, 8), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_what_one_image_adds_is_within_the_bound(scale: float, kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(2, 2, 4, 4)
    engine = Engine(model, clipping=Clipping(kind, 0.7), verify=False)
    with_both = engine.gradients(lambda: 10**scale * curved(model, x)).sum
    with_one = engine.gradients(lambda: 10**scale * curved(model, x[:1])).sum
    moved = math.sqrt(sum(float((with_both[k] - with_one[k]).double().square().sum()) for k in with_both))
    assert moved <= engine.clipping.sensitivity


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_it_says(kind: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), torch.randn(5, 4).double()
    clipping = Clipping(kind, 0.5, gamma=0.1)
    out = Engine(model, clipping=clipping).gradients(lambda: curved(model, x))
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for image in range(5):
        found = torch.autograd.grad(curved(model, x[image : image + 1]).sum(), list(model.parameters()))
        grads = dict(zip(expected, found, strict=True))
        layers = {name.rpartition(".")[0] if kind == "per-layer" else "" for name in grads}
        for layer in layers:
            names = [n for n in grads if kind != "per-layer" or n.startswith(layer)]
            norm = math.sqrt(sum(float(grads[n].square().sum()) for n in names))
            bound = 0.5 / math.sqrt(len(layers)) * (1 - 2.0**-10)
            factor = bound / (norm + 0.1) if kind == "automatic" else min(1, bound / norm)
            for n in names:
                expected[n] += factor * grads[n]
    for name, value in expected.items():
        assert torch.allclose(out.sum[name], value, rtol=1e-12, atol=1e-13)
    assert (set(out.layers) == {"0", "2"}) == (kind == "per-layer")
    assert out.factors.shape == out.norms.shape == (5,)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("kernel", ["groups", "unfold gram", "shifts", "gram"])
def test_an_image_that_is_not_finite_adds_exactly_nothing(poison: float, kernel: str) -> None:
    from sfumato.training.engine.choose import forced

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    x = torch.randn(4, 4, 4, 4)
    x[2, 0, 0, 0] = poison
    engine = Engine(model)
    with forced(kernel):
        out = engine.gradients(lambda: curved(model, x).square())
        rest = engine.gradients(lambda: curved(model, x[[0, 1, 3]]).square())
    assert out.factors[2] == 0
    for name, value in rest.sum.items():
        assert value.isfinite().all()
        assert torch.allclose(out.sum[name], value, rtol=1e-5, atol=1e-6), name


def test_views_are_averaged_before_the_clip() -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).double(),
        torch.randn(6, 3, 4, 4),
    )
    x = x.double()
    out = Engine(model, clipping=Clipping("flat", 1.0)).gradients(lambda: curved(model, x), views=3)
    assert out.units == 2
    assert difference(out, by_loop(model, x, views=3)) < 1e-12


def test_weights_multiply_the_losses() -> None:
    model, x = nn.Linear(4, 2).double(), torch.randn(3, 4).double()
    weights = torch.tensor([1.0, 0.0, 2.0]).double()
    out = Engine(model).gradients(lambda: curved(model, x), weights=weights)
    assert out.norms[1] == 0
    plain = Engine(model).gradients(lambda: curved(model, x))
    assert torch.allclose(out.norms[2], 2 * plain.norms[2])


def test_an_empty_batch_is_a_sum_of_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))
    out = Engine(model).gradients(lambda: curved(model, torch.zeros(0, 3, 4, 4)))
    assert out.units == 0
    assert all(not value.any() for value in out.sum.values())


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf, True, "1"])
def test_a_bound_out_of_range_is_refused(bound: object) -> None:
    with pytest.raises(InvalidRequest, match="bound must be a number above 0"):
        Clipping("flat", bound)  # type: ignore[arg-type]


def test_another_kind_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'flat'"):
        Clipping("flatt")
