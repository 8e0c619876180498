"""The coupling probe, run on a detector before its first step, on made-up pictures: it costs no budget."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfumato.training.coupling import probe
from sfumato.training.detect.loss import DetectionLoss, Targets

#: Pictures, their side in pixels, boxes in each.
_PICTURES, _SIDE, _BOXES = 3, 64, 3


def probe_detector(model: nn.Module, loss: DetectionLoss) -> None:
    """Change one made-up picture after another, and refuse a model or loss in which others notice.

    Args:
        model: as it will be trained.
        loss: outputs and targets -> (B,) losses.

    Raises:
        InvalidRequest: something couples the pictures of a batch; says what.
    """

    def losses(batch: Mapping[str, Tensor]) -> Tensor:
        targets = Targets(batch["classes"], batch["boxes"].float(), batch["real"])
        return loss(model(batch["pixels"]), targets)

    probe(model, losses, made_up(loss.classes, next(model.parameters()).device), train=False).refuse()


def made_up(classes: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return pictures of even waves, with boxes, as the probe takes them: no picture of anybody."""
    rows = torch.linspace(0, 6.28, _SIDE, device=device)
    number = torch.arange(1, _PICTURES + 1, device=device)
    waves = (rows[None, :, None] * number[:, None, None]).sin() * (
        rows[None, None, :] * (number + 1)[:, None, None]
    ).cos()
    pixels = (0.5 + 0.4 * waves).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    place = torch.arange(_BOXES, device=device)
    low = (8 * place[None, :] + 4 * number[:, None]).unsqueeze(-1).expand(-1, -1, 2)
    boxes = torch.cat((low, low + 12 + 8 * number[:, None, None]), -1)
    kinds = (number[:, None] + place[None, :]) % classes
    real = place[None, :] < number[:, None] % (_BOXES + 1)
    return {"pixels": pixels, "classes": kinds, "boxes": boxes.long(), "real": real}
