"""Planted couplings between images, and models without any, for the probe's tests and its benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE, CLASSES, IMAGES = 8, 3, 4
Batch = tuple[Tensor, Tensor]
Build = Callable[[], tuple[nn.Module, Callable[[Batch], Tensor]]]


def batch(images: int = IMAGES, channels: int = 3, side: int = SIDE, classes: int = CLASSES) -> Batch:
    x = torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(3))
    return x, torch.arange(images) % classes


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def net(*middle: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        *middle,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def entropy(model: nn.Module) -> Callable[[Batch], Tensor]:
    return lambda b: functional.cross_entropy(model(b[0]), b[1], reduction="none")


def layer(make: Callable[[], nn.Module]) -> Build:
    def build() -> tuple[nn.Module, Callable[[Batch], Tensor]]:
        model = net(make())
        return model, entropy(model)

    return build


def does(function: Callable[[Tensor], Tensor]) -> Build:
    return layer(lambda: Apply(function))


def loss(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Build:
    """change(losses, outputs, labels) -> losses."""

    def build() -> tuple[nn.Module, Callable[[Batch], Tensor]]:
        model = net()

        def losses(b: Batch) -> Tensor:
            out = model(b[0])
            return change(functional.cross_entropy(out, b[1], reduction="none"), out, b[1])

        return model, losses

    return build


def before(change: Callable[[Tensor], Tensor]) -> Build:
    """change(images) -> images, before the model."""

    def build() -> tuple[nn.Module, Callable[[Batch], Tensor]]:
        model = net()
        return model, lambda b: functional.cross_entropy(model(change(b[0])), b[1], reduction="none")

    return build


def frozen(norm: nn.Module) -> nn.Module:
    return norm.requires_grad_(False)


class Centre(nn.Module):
    """As DINO does: a running centre of the outputs, subtracted later."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x - self.centre
        self.centre.mul_(0.99).add_(x.detach().mean((0, 2, 3)).reshape(8, 1, 1), alpha=0.01)
        return y


class Watcher(nn.Module):
    """Keeps statistics that it never uses: they are saved with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.largest.copy_(torch.maximum(self.largest, x.detach().max()))
        return x


class Bank(nn.Module):
    """As MoCo does: a queue of features of images seen before, in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = x - 0.1 * torch.stack(self.queue).mean(0) if self.queue else x
        self.queue = [*self.queue, x.detach().mean((0, 2, 3)).reshape(8, 1, 1)][-16:]
        return y


class GradientNorm(nn.Module):
    """Scales gradients by their norm over the batch, on the way back only."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda g: g / (g.norm() + 1e-6))
        return y


class AcrossImages(nn.Module):
    """Attention with batch and sequence mistaken for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        return self.attention(y, y, y)[0].transpose(1, 2).reshape(x.shape)


class Renormed(nn.Module):
    """Batch renormalisation written by hand, with its statistics in float64 and detached."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().double()
        return (x - flat.mean((0, 2, 3), keepdim=True).float()) / flat.std((0, 2, 3), keepdim=True).float()


def mosaic(x: Tensor) -> Tensor:
    half = SIDE // 2
    y = x.clone()
    y[:, :, half:, half:] = x.roll(1, 0)[:, :, half:, half:]
    return y


def ranked(x: Tensor) -> Tensor:
    return x * x.mean((1, 2, 3)).argsort().argsort().reshape(-1, 1, 1, 1)


def hardest(losses: Tensor, out: Tensor, labels: Tensor) -> Tensor:
    """Only the harder half of the batch counts."""
    return losses * (losses.detach() >= losses.detach().median())


def contrastive(losses: Tensor, out: Tensor, labels: Tensor) -> Tensor:
    unit = functional.normalize(out, dim=1)
    likeness = (unit @ unit.T) / 0.5
    return losses + likeness.logsumexp(1)


def nearest(losses: Tensor, out: Tensor, labels: Tensor) -> Tensor:
    apart = torch.cdist(out, out) + 1e3 * torch.eye(len(out))
    return losses + apart.min(1).values


def distinct(losses: Tensor, out: Tensor, labels: Tensor) -> Tensor:
    """Images of a class that comes twice count half."""
    return losses / (labels[:, None] == labels[None]).sum(1)


@dataclass(frozen=True)
class Leak:
    name: str
    build: Build
    kinds: frozenset[str]
    """Kinds of findings of which at least one is expected."""


def _leak(name: str, build: Build, *kinds: str) -> Leak:
    return Leak(name, build, frozenset(kinds))


LEAKS = [
    _leak("BatchNorm", layer(lambda: nn.BatchNorm2d(8)), "layer"),
    _leak("BatchNorm, parameters frozen", layer(lambda: frozen(nn.BatchNorm2d(8))), "layer"),
    _leak("BatchNorm, affine=False", layer(lambda: nn.BatchNorm2d(8, affine=False)), "layer"),
    _leak("BatchNorm, no statistics", layer(lambda: nn.BatchNorm2d(8, track_running_stats=False)), "layer"),
    _leak("SyncBatchNorm", layer(lambda: nn.SyncBatchNorm(8)), "layer"),
    _leak("LazyBatchNorm", layer(nn.LazyBatchNorm2d), "layer"),
    _leak(
        "functional batch_norm", does(lambda x: functional.batch_norm(x, None, None, training=True)), "output"
    ),
    _leak("InstanceNorm, kept", layer(lambda: nn.InstanceNorm2d(8, track_running_stats=True)), "layer"),
    _leak("batch renormalisation, detached", layer(Renormed), "output"),
    _leak("centring by the batch's mean", does(lambda x: x - 0.01 * x.mean(0)), "output"),
    _leak("softmax over the batch", does(lambda x: x.softmax(0)), "output"),
    _leak("attention across images", layer(AcrossImages), "output"),
    _leak("roll over the batch", does(lambda x: x + 0.1 * x.roll(1, 0)), "output"),
    _leak("weighted by rank in the batch", does(ranked), "output"),
    _leak("clipped at a quantile", does(lambda x: x.clamp(max=x.detach().quantile(0.9))), "output"),
    _leak("a part of 1e-12 of the others", does(lambda x: x + 1e-12 * x.sum(0)), "loss"),
    _leak("running centre in a buffer", layer(Centre), "memory"),
    _leak("statistics that are only kept", layer(Watcher), "memory"),
    _leak("queue of features", layer(Bank), "state"),
    _leak("gradients scaled by the batch", layer(GradientNorm), "gradient"),
    _leak("mixup", before(lambda x: 0.9 * x + 0.1 * x.flip(0)), "output"),
    _leak("mosaic", before(mosaic), "output"),
    _leak("loss / sum of targets", loss(lambda each, out, labels: each / labels.sum()), "loss"),
    _leak("loss / sum of scores", loss(lambda each, out, labels: each / out.detach().exp().sum()), "loss"),
    _leak("loss / images in the batch", loss(lambda each, out, labels: each / len(each)), "batch size"),
    _leak("loss weighted by class counts", loss(distinct), "loss"),
    _leak("hardest half of the batch", loss(hardest), "loss", "gradient"),
    _leak("contrastive loss", loss(contrastive), "loss"),
    _leak("nearest neighbour in the batch", loss(nearest), "loss"),
    _leak("standardised losses", loss(lambda each, out, labels: (each - each.mean()) / each.std()), "loss"),
]


class Counter(nn.Module):
    """A buffer that counts calls: it holds nothing of images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class WithinImages(AcrossImages):
    """Attention between the places of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)


def drop_whole_images(x: Tensor) -> Tensor:
    """Stochastic depth: some images skip the layer, by chance and not by what they show."""
    return x * (torch.empty(len(x), 1, 1, 1).bernoulli_(0.5))


def drop_the_layer(x: Tensor) -> Tensor:
    """Stochastic depth for the whole batch at once: chance that all share."""
    return x * torch.empty(1).bernoulli_(0.5)


CLEAN: dict[str, Callable[[], nn.Module]] = {
    "nothing": nn.Identity,
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "InstanceNorm": lambda: nn.InstanceNorm2d(8, affine=True),
    "LayerNorm": lambda: nn.LayerNorm([8, SIDE, SIDE]),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of channels": lambda: nn.Dropout2d(0.5),
    "attention within images": WithinImages,
    "stochastic depth by image": lambda: Apply(drop_whole_images),
    "stochastic depth by batch": lambda: Apply(drop_the_layer),
    "a counter": Counter,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)),
    "softmax over classes": lambda: Apply(lambda x: x.softmax(1)),
    "in-place ReLU": lambda: nn.ReLU(inplace=True),
}


def planted(leak: Leak) -> tuple[nn.Module, Callable[[Batch], Tensor], Any]:
    model, losses = leak.build()
    return model, losses, batch()
