"""Features of public constants, and a linear head on them: what works best on small private data.

Nothing here looks at the data as a whole: no mean, no deviation, no whitening. Each would be a release of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.scattering import Scattering

#: Tramer and Boneh (2021) take 27 groups of the 81 scattering paths.
GROUPS = 27
#: Part of the shapes' mean that is subtracted: pictures are like them, and not the same.
CENTRED = 0.7
#: Pictures at a time: more do not fit the processor's caches.
CHUNK = 32


class ScatterNet(nn.Module):
    """Scattering coefficients, normalised within each picture, as one vector: nothing of it is learnt.

    >>> net = ScatterNet(28, channels=1)
    >>> net(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 3969])
    >>> net.width
    3969

    Args:
        side, channels: of the pictures.
        scales, angles: see `Scattering`.
        groups: of the normalisation, per channel of the picture; 0: none.
        centred: subtract a constant, most of the mean feature of made-up shapes: what all pictures have in
            common only takes room below the clip, and noise grows with it.

    Source: Tramer and Boneh, "Differentially Private Learning Needs Better Features" (2021).
    """

    def __init__(
        self,
        side: int,
        *,
        channels: int = 1,
        scales: int = 2,
        angles: int = 8,
        groups: int = GROUPS,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.scattering = Scattering(side, scales, angles)
        paths = channels * self.scattering.paths
        if groups and paths % (groups * channels):
            raise InvalidRequest(
                f"groups must divide the {self.scattering.paths} scattering paths, got {groups}; 0: none"
            )
        norm = nn.GroupNorm(groups * channels, paths, affine=False) if groups else nn.Identity()
        self.norm: nn.Module = norm
        self.channels = channels
        self.width = paths * (side // 2**scales) ** 2
        centre = torch.zeros(self.width)
        if centred:
            with torch.no_grad():
                centre = CENTRED * self._raw(shapes(side).expand(-1, channels, -1, -1)).mean(0)
        self.register_buffer("centre", centre, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(images, channels, side, side) to (images, width)."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InvalidRequest(
                f"pictures must be (images, {self.channels}, side, side), got {tuple(x.shape)}"
            )
        centre: Tensor = self.get_buffer("centre")
        return self._raw(x) - centre

    def _raw(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.scattering(x))
        return y.flatten(1)


def shapes(side: int) -> Tensor:
    """Return made-up pictures, boxes and ovals with a faint texture: (64, 1, side, side) in 0..1.

    They are constants, drawn by no chance and after no data.
    """
    at = (torch.arange(side) - (side - 1) / 2) / side * 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    texture = 0.1 * torch.sin(37 * x + 11 * y) * torch.cos(29 * y - 7 * x)
    sizes = (0.35, 0.55, 0.75, 0.95)
    made = []
    for wide in sizes:
        for high in sizes:
            box = ((x / wide).abs() < 1) & ((y / high).abs() < 1)
            oval = (x / wide) ** 2 + (y / high) ** 2 < 1
            made += [body * (level + texture) for body in (box, oval) for level in (0.5, 0.9)]
    return torch.stack(made).clamp(0, 1).unsqueeze(1)


class Frozen(nn.Module):
    """Features of a model that was trained on public data: whatever it computes before its last layer.

    Args:
        model: of `training.models` (its `body` is taken), of timm, or any module that gives one vector per
            image; it stays in eval mode and is not trained.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = _without_head(model).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode: statistics of a public pretraining are constants here."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(images, channels, side, side) to (images, width)."""
        y = self.model(x)
        if not isinstance(y, Tensor) or len(y) != len(x):
            raise InvalidRequest("the model must give one row of features per image")
        return y.flatten(1)


def _without_head(model: nn.Module) -> nn.Module:
    if isinstance(body := getattr(model, "body", None), nn.Module) and hasattr(model, "head"):
        return body
    if callable(reset := getattr(model, "reset_classifier", None)):  # timm's way
        reset(0)
    return model


@torch.no_grad()
def features(
    extractor: nn.Module,
    pictures: Tensor,
    *,
    chunk: int = CHUNK,
    prepare: Callable[[Tensor], Tensor] | None = None,
    tell: Callable[[int, int], Any] | None = None,
) -> Tensor:
    """Return the features of all pictures, a chunk at a time.

    >>> features(ScatterNet(8), torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 324])

    Guarantee (proven):
        Each row depends on its own picture alone, and on constants, if the extractor is in eval mode and has
        been trained on public data only; so training on features has the privacy of training on pictures.

    Args:
        extractor: `ScatterNet`, `Frozen`, or any module; it is put into eval mode.
        pictures: (images, channels, side, side), of any type that `prepare` takes.
        chunk: pictures at a time.
        prepare: chunk -> float32 chunk, such as `pictures / 255`; None: as they are.
        tell: is called with how many are done, and of how many.
    """
    extractor.eval()
    made = torch.empty(0)
    for start, part in _chunks(pictures, chunk):
        rows: Tensor = extractor(prepare(part) if prepare is not None else part)
        if not start:
            made = rows.new_empty(
                len(pictures), *rows.shape[1:]
            )  # joined at the end, they would be there twice
        made[start : start + len(part)] = rows
        if tell is not None:
            tell(start + len(part), len(pictures))
    if not len(pictures):
        raise InvalidRequest("there are no pictures to make features of")
    return made


def linear_head(width: int, classes: int) -> nn.Linear:
    """Return a linear classifier that starts at zero: no step is spent on forgetting a random start."""
    head = nn.Linear(width, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _chunks(pictures: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(pictures), chunk):
        yield start, pictures[start : start + chunk]
