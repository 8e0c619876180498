"""YOLO's loss, one number per picture: no picture's loss depends on another picture.

The package's criterion divides by the sum of the target scores of the whole batch, so that one picture's
labels change every picture's gradient. Here each picture is divided by its own sum, which is what the package
computes for a batch of one. Written from the formulas; the assigner and the IoU are the package's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.core.errors import InvalidRequest
from sfumato.training.detect import _ultralytics as yolo

#: Weight of the one-to-many head at the first epoch and at the last; the one-to-one head has the rest.
FIRST, LAST = 0.8, 0.1


@dataclass(frozen=True, slots=True)
class Targets:
    """What is marked in a batch of pictures, padded to the largest number of boxes.

    Args:
        classes: (B, n) int64.
        boxes: (B, n, 4) float, x1 y1 x2 y2 in pixels of the input.
        real: (B, n) bool; False for padding.
    """

    classes: Tensor
    boxes: Tensor
    real: Tensor

    @classmethod
    def of(cls, marked: list[tuple[Tensor, Tensor]]) -> Targets:
        """Pad pictures' (classes (n,), boxes (n, 4)) to one size; a picture may have none."""
        if not marked:
            return cls(torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, 4), torch.zeros(0, 0).bool())
        most = max(len(classes) for classes, _ in marked)
        boxes = torch.zeros(len(marked), most, 4, dtype=marked[0][1].dtype)
        kinds = torch.zeros(len(marked), most, dtype=torch.int64)
        real = torch.zeros(len(marked), most, dtype=torch.bool)
        for index, (classes, places) in enumerate(marked):
            count = len(classes)
            kinds[index, :count], boxes[index, :count], real[index, :count] = classes, places, True
        return cls(kinds, boxes, real)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Targets:
        """Return them on a device, boxes in a floating type."""
        return Targets(self.classes.to(device), self.boxes.to(device, dtype), self.real.to(device))

    def __getitem__(self, part: slice) -> Targets:
        return Targets(self.classes[part], self.boxes[part], self.real[part])

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Gains:
    """Weights of the loss's parts; the defaults are the package's."""

    box: float = 7.5
    cls: float = 0.5
    dfl: float = 1.5


def schedule(epoch: float, epochs: int) -> tuple[float, float]:
    """Return the weights of the one-to-many and the one-to-one head in an epoch: public, by its number alone.

    >>> schedule(0, 100)[0], schedule(99, 100)[0]
    (0.8, 0.1)
    """
    done = max(1 - int(epoch) / max(epochs - 1, 1), 0.0)
    many = done * (FIRST - LAST) + LAST
    return many, max(1 - many, 0.0)


class DetectionLoss:
    """The losses of a batch of pictures, each by itself.

    Guarantee:
        Entry i of the result, and its gradient, is a function of picture i, its labels and the weights alone.
        Exact arithmetic is meant: on some devices a kernel chosen by the batch's shape rounds differently.

    Args:
        model: a detector; its head says how many classes and bins there are.
        gains: weights of the parts.
        epochs: length of the schedule between its two heads.
    """

    def __init__(self, model: nn.Module, gains: Gains | None = None, epochs: int = 100) -> None:
        head = yolo.head(model)
        self.strides: Tensor = head.stride
        self.bins, self.classes = int(head.reg_max), int(head.nc)
        self.gains, self.epochs = gains or Gains(), epochs
        self.double = getattr(head, "one2one_cv2", None) is not None
        self._many = yolo.assigner(model, 10, None)
        self._one = yolo.assigner(model, 7, 1)

    def __call__(self, outputs: Any, targets: Targets, epoch: float = 0) -> Tensor:
        """Return the losses of the pictures: (B,).

        Args:
            outputs: what the model returned in training mode.
            targets: of the same pictures.
            epoch: where the schedule stands; public.
        """
        if isinstance(outputs, tuple):
            outputs = outputs[1]
        kind = (outputs["one2many"] if self.double else outputs)["boxes"].device.type
        with torch.autocast(kind, enabled=False):  # the model may run in half precision, its loss never
            if not self.double:
                return self._branch(outputs, targets, self._many)
            many, one = schedule(epoch, self.epochs)
            first = self._branch(outputs["one2many"], targets, self._many)
            second = self._branch(outputs["one2one"], targets, self._one)
            return first * many + second * one

    def _branch(self, found: Mapping[str, Any], targets: Targets, assigner: nn.Module) -> Tensor:
        """Return the losses of one head."""
        raw = _full(found["boxes"]).permute(0, 2, 1)  # (B, A, 4 * bins)
        logits = _full(found["scores"]).permute(0, 2, 1)  # (B, A, classes)
        if len(logits) != len(targets):
            raise InvalidRequest(f"{len(logits)} pictures came with the labels of {len(targets)}")
        points, steps = yolo.anchors(
            [raw.new_empty(1, 1, *f.shape[2:]) for f in found["feats"]], self.strides
        )
        sides = torch.tensor(found["feats"][0].shape[2:], dtype=raw.dtype, device=raw.device)
        sides = (sides * self.strides[0]).flip(0).repeat(2)  # width, height, width, height
        distances = self._distances(raw)
        boxes = torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)
        _, places, scores, chosen, _ = assigner(
            logits.detach().sigmoid(),
            (boxes.detach() * steps).to(targets.boxes.dtype),
            points * steps,
            targets.classes.unsqueeze(-1).to(targets.boxes.dtype),
            targets.boxes,
            # A box without area or at the padding's place counts as none, as in the package.
            (targets.real & (targets.boxes.sum(-1) > 0)).unsqueeze(-1).to(targets.boxes.dtype),
        )
        total = scores.sum((1, 2)).clamp(min=1)  # of each picture: its own normaliser
        scores = scores.to(logits.dtype)
        kinds = (
            functional.binary_cross_entropy_with_logits(logits, scores, reduction="none").sum((1, 2)) / total
        )
        picture, anchor = chosen.nonzero(as_tuple=True)
        weight = scores[picture, anchor].sum(-1) / total[picture]
        point, step, place = points[anchor], steps[anchor], places[picture, anchor] / steps[anchor]
        overlap = 1.0 - yolo.complete_iou(boxes[picture, anchor], place)
        wanted = torch.cat((point - place[:, :2], place[:, 2:] - point), -1)
        if self.bins > 1:
            coarse = self._bins(raw[picture, anchor], wanted)
        else:
            coarse = ((raw[picture, anchor] - wanted) * step / sides).abs().mean(-1)
        part = (self.gains.box * overlap + self.gains.dfl * coarse) * weight
        total_loss: Tensor = self.gains.cls * kinds
        return total_loss.index_add(0, picture, part.to(kinds.dtype))

    def _distances(self, raw: Tensor) -> Tensor:
        """Return left, top, right, bottom in cells: (B, A, 4)."""
        if self.bins == 1:
            return raw
        shaped = raw.reshape(*raw.shape[:-1], 4, self.bins).softmax(-1)
        return torch.matmul(shaped, torch.arange(self.bins, dtype=raw.dtype, device=raw.device))

    def _bins(self, raw: Tensor, wanted: Tensor) -> Tensor:
        """Return the cross-entropy with the two bins nearest to the wanted distances: (N,)."""
        wanted = wanted.clamp(0, self.bins - 1 - 0.01)
        lower = wanted.long()
        share = lower + 1 - wanted
        logs = raw.reshape(*raw.shape[:-1], 4, self.bins).log_softmax(-1)
        low = logs.gather(-1, lower.unsqueeze(-1)).squeeze(-1)
        high = logs.gather(-1, lower.unsqueeze(-1) + 1).squeeze(-1)
        found: Tensor = -(low * share + high * (1 - share)).mean(-1)
        return found


def _full(values: Tensor) -> Tensor:
    """Return values in single precision at least."""
    return values if values.dtype == torch.float64 else values.float()
