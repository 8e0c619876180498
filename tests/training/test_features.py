"""Features are constants: each row of its own picture, whatever else is there."""

from __future__ import annotations

import importlib.util

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from torch import nn  # noqa: E402

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.features import Frozen, ScatterNet, features, linear_head, shapes  # noqa: E402
from sfumato.training.models import build  # noqa: E402
from sfumato.training.scattering import Scattering  # noqa: E402


def pictures(count: int = 5, channels: int = 1, side: int = 28) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(4))


def defined(x: torch.Tensor, net: Scattering) -> torch.Tensor:
    """Second-order scattering of one picture by its definition, one wavelet at a time, in float64."""
    from sfumato.training import scattering as module

    side, step = net.padded, 2**net.scales
    at = torch.fft.fftfreq(side, dtype=torch.float64) * 2 * torch.pi
    sigma = 0.8 * 2 ** (net.scales - 1)
    low = torch.exp(-(sigma**2) * (at[:, None] ** 2 + at[None] ** 2) / 2)
    waves = [[module._morlet(side, j, t, net.angles) for t in range(net.angles)] for j in range(net.scales)]
    padded = net._pad(x.reshape(1, 1, *x.shape[-2:])).double()[0, 0]

    def smooth(y: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(torch.fft.fft2(y) * low).real[::step, ::step][1:-1, 1:-1]

    def through(y: torch.Tensor, wave: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(torch.fft.fft2(y) * wave).abs()

    first, second = [smooth(padded)], []
    for j1, row in enumerate(waves):
        for wave in row:
            one = through(padded, wave)
            first.append(smooth(one))
            second += [smooth(through(one, w)) for later in waves[j1 + 1 :] for w in later]
    return torch.stack(first + second)


@pytest.mark.parametrize(("side", "scales"), [(28, 2), (32, 2), (16, 1)])
def test_the_transform_is_its_definition(side: int, scales: int) -> None:
    """Without the shortcut of smaller maps, which costs about 1e-2 of the largest coefficient."""
    net, x = Scattering(side, scales), pictures(1, 1, side)
    expected = defined(x, net)
    assert (net(x)[0] - expected).abs().max() < 0.02 * expected.max()
    assert (net(x)[0].flip(0) - expected).abs().max() > 0.2 * expected.max()  # the wrong twin: other order


@pytest.mark.skipif(
    not importlib.util.find_spec("kymatio"), reason="compares with Kymatio: pip install kymatio"
)
@pytest.mark.parametrize(("side", "scales"), [(28, 2), (32, 3), (30, 1)])
def test_the_transform_is_kymatio_s(side: int, scales: int) -> None:
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D

    x = pictures(3, 2, side)
    theirs = ScatteringTorch2D(J=scales, shape=(side, side))(x)
    ours = Scattering(side, scales)(x)
    assert torch.allclose(ours.reshape(theirs.shape), theirs, atol=2e-6)


def test_a_wavelet_answers_to_its_own_angle() -> None:
    ramp = torch.arange(32.0)
    rows = (ramp.reshape(-1, 1) * 0.75 * torch.pi).sin().expand(32, 32).reshape(1, 1, 32, 32)
    net = Scattering(32)
    one, other = (net(x)[0, 1:9].mean((1, 2)) for x in (rows, rows.transpose(2, 3)))
    assert one.argmax() != other.argmax()
    assert one.max() > 5 * one.median()


def test_scatternet_is_normalised_within_each_picture() -> None:
    net = ScatterNet(28, centred=False)
    x = pictures()
    rows = net(x)
    assert rows.shape == (5, net.width) == (5, 3969)
    assert rows.reshape(5, 27, -1).mean(2).abs().max() < 1e-4
    assert torch.allclose(net(x[2:3]), rows[2:3], atol=1e-5)
    assert not list(net.parameters())
    assert not net.state_dict()


def test_the_centre_is_a_constant_that_shortens_features() -> None:
    x = shapes(28).flip(2) * 0.8
    whole, centred = ScatterNet(28, centred=False)(x), ScatterNet(28)(x)
    assert torch.allclose(whole - centred, (whole - centred)[:1], atol=1e-5)
    assert centred.norm(dim=1).mean() < 0.95 * whole.norm(dim=1).mean()
    assert torch.equal(ScatterNet(28).centre, ScatterNet(28).centre)


def test_colours_are_channels_of_their_own() -> None:
    x = pictures(2, 3, 16)
    net = ScatterNet(16, channels=3, centred=False)
    alone = ScatterNet(16, centred=False)
    expected = torch.cat([alone(x[:, c : c + 1]) for c in range(3)], 1)
    assert torch.allclose(net(x), expected, atol=1e-5)


def test_features_are_made_in_chunks_and_told() -> None:
    told: list[tuple[int, int]] = []
    x = (pictures(5, 1, 8) * 255).to(torch.uint8)
    net = ScatterNet(8)
    made = features(net, x, chunk=2, prepare=lambda part: part / 255, tell=lambda *at: told.append(at))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert torch.allclose(made, net(x / 255), atol=1e-5)
    with pytest.raises(InvalidRequest, match="no pictures"):
        features(net, x[:0])


def test_a_frozen_model_gives_its_body_and_learns_nothing() -> None:
    model = build("resnet18-gn", size=32)
    frozen = Frozen(model)
    x = pictures(2, 3, 32)
    assert frozen(x).shape == (2, 512)
    assert torch.equal(model.head(frozen(x)), model(x))
    assert not [p for p in frozen.parameters() if p.requires_grad]


def test_a_frozen_batchnorm_stays_frozen() -> None:
    frozen = Frozen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)))
    frozen.train()
    x = pictures(3, 3, 8)
    alone = torch.cat([frozen(one[None]) for one in x])
    assert torch.allclose(frozen(x), alone, atol=1e-6)
    assert int(frozen.model[1].num_batches_tracked) == 0


def test_a_timm_model_loses_its_classifier() -> None:
    class Timm(nn.Module):
        def __init__(self, width: int, classes: int) -> None:
            super().__init__()
            self.classifier: nn.Module = nn.Linear(width, classes)

        def reset_classifier(self, classes: int) -> None:
            self.classifier = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(x)

    assert Frozen(Timm(3, 7))(torch.rand(2, 3)).shape == (2, 3)


def test_a_linear_head_starts_at_zero() -> None:
    head = linear_head(5, 3)
    assert not head(torch.rand(2, 5)).any()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Scattering(4, 2), "larger than 4 pixels"),
        (lambda: Scattering(32, 0), r"1\.\.6 octaves"),
        (lambda: Scattering(32, angles=0), "angles"),
        (lambda: ScatterNet(28, groups=10), "must divide the 81"),
        (lambda: ScatterNet(28)(torch.rand(2, 3, 28, 28)), r"\(images, 1, side, side\)"),
        (lambda: Scattering(28)(torch.rand(2, 1, 27, 27)), "28 pixels a side"),
        (lambda: Frozen(nn.Flatten(0))(torch.rand(2, 3)), "one row of features per image"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        make()
