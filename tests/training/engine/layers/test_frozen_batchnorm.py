"""Frozen batch norm: every image's gradient, in any number of dimensions and precision."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from torch import nn  # noqa: E402

KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def model_of(dims, affine=True, dtype=torch.float64):
    torch.manual_seed(1)
    norm = KINDS[dims](4, affine=affine)
    for buffer in (norm.running_mean, norm.running_var):
        nn.init.uniform_(buffer, 0.5, 2.0)
    if affine:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.uniform_(norm.bias, -1.0, 1.0)

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Parameter(torch.rand(1, 4, *[1] * (dims - 2))), norm

        def forward(self, x):
            return self.norm(x * self.first)

    return First().to(dtype).eval()


def looped(model, x, bound):
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for image in x:
        value = model(image[None]).tanh().square().sum()
        grads = torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad])
        factor = min(1.0, bound * (1 - 2.0**-10) / float(torch.sqrt(sum((g**2).sum() for g in grads))))
        for total, grad in zip(sums.values(), grads, strict=True):
            total += factor * grad
    return sums


def engine_of(model, bound=0.5):
    from sfumato.training.engine import Clipping, Engine

    return Engine(model, clipping=Clipping("flat", bound))


@pytest.mark.parametrize("dims", [2, 3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
def test_sums_are_those_of_a_loop(dims, affine):
    model, x = model_of(dims, affine), torch.rand(5, 4, *[3] * (dims - 2), dtype=torch.float64)
    made = engine_of(model).gradients(lambda: model(x).tanh().square().flatten(1).sum(1)).sum
    sums = looped(model, x, 0.5)
    assert set(made) == set(sums)
    for name, total in sums.items():
        assert float((made[name] - total).abs().max()) <= 1e-12 * float(total.abs().max())


def test_a_frozen_scale_beside_a_trained_shift():
    model, x = model_of(4), torch.rand(5, 4, 3, 3, dtype=torch.float64)
    model.norm.weight.requires_grad_(False)
    made = engine_of(model).gradients(lambda: model(x).tanh().square().flatten(1).sum(1)).sum
    sums = looped(model, x, 0.5)
    assert set(made) == {"first", "norm.bias"} == set(sums)
    assert all(torch.allclose(made[name], total, rtol=1e-12, atol=0) for name, total in sums.items())


def test_half_precision_maps_are_summed_in_the_parameters_precision():
    model = model_of(4, dtype=torch.float32)
    x = 3 + torch.rand(3, 4, 64, 64)

    def losses():
        with torch.autocast("cpu", torch.bfloat16):
            return model.norm((x * model.first).bfloat16()).float().flatten(1).mean(1)

    made = engine_of(model, 1e6).gradients(losses).sum
    exact = 3 / 4 * torch.ones(4)  # the mean over 4 channels: each channel's shift has a gradient of 1/4
    assert made["norm.bias"].dtype == torch.float32
    assert torch.allclose(made["norm.bias"], exact, rtol=5e-3)


def test_the_batchs_own_statistics_are_refused():
    from sfumato.core.errors import InvalidRequest

    model, x = model_of(4), torch.rand(5, 4, 3, 3, dtype=torch.float64)
    engine = engine_of(model)
    model.train()
    with pytest.raises(InvalidRequest, match=r"(?i)batch.?norm|statistics of the batch"):
        engine.gradients(lambda: model(x).flatten(1).sum(1))
