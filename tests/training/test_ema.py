"""The average of the weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.ema import EMA  # noqa: E402


def test_it_is_the_mean_that_it_says() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema, wanted = EMA(net, 0.9), 0.0
    for step in range(1, 200):
        torch.nn.init.constant_(net.weight, float(step))
        ema.update(net)
        kept = min(0.9, (1 + step) / (10 + step))
        wanted = kept * wanted + (1 - kept) * step
        assert float(ema.weights["weight"]) == pytest.approx(wanted, rel=1e-5)


def test_it_is_put_in_and_taken_out_and_leaves_frozen_ones_alone() -> None:
    net = torch.nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    ema = EMA(net, 0.5)
    assert list(ema.weights) == ["weight"]
    before = net.weight.detach().clone()
    ema.weights["weight"].fill_(7)

    def interrupted() -> None:
        with ema.applied(net):
            assert (net.weight == 7).all()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("decay", [1.0, -0.1, True, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(InvalidRequest, match="decay"):
        EMA(torch.nn.Linear(1, 1), decay)


def test_another_models_average_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="another model"):
        EMA(torch.nn.Linear(1, 1), 0.5).load({"x": torch.zeros(1)}, 1)
