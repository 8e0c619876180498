"""One private training step of YOLO26n against one ordinary step: the same pictures, alternated.

Ordinary: BatchNorm with the batch's statistics, the package's loss, autograd, SGD. Private: frozen
statistics, a loss for each picture, each picture's whole gradient clipped, Gaussian noise from the cipher
of training, SGD. Reading pictures is left out of both. `frozen` is the ordinary step with frozen statistics,
as many fine-tune.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from torch import nn

from _bench import arguments, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

SIDE, CLASSES = 320, 80


def labels(count: int, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Five boxes in each picture."""
    made = []
    for _ in range(count):
        low = torch.rand(5, 2) * side * 0.6
        high = (low + 10 + torch.rand(5, 2) * side * 0.3).clamp(max=side)
        made.append((torch.randint(CLASSES, (5,)), torch.cat((low, high), 1)))
    return made


def package_batch(marked: list[tuple[torch.Tensor, torch.Tensor]], side: int) -> dict[str, torch.Tensor]:
    """The same labels, as the package wants them."""
    boxes = torch.cat([places for _, places in marked])
    centres = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1) / side
    index = [torch.full((len(kinds),), number) for number, (kinds, _) in enumerate(marked)]
    return {
        "batch_idx": torch.cat(index).float(),
        "cls": torch.cat([kinds for kinds, _ in marked]).float()[:, None],
        "bboxes": centres,
    }


def ordinary(
    model: nn.Module, pixels: torch.Tensor, batch: dict[str, torch.Tensor], loss: Callable[..., object]
):
    """The step that everybody takes."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(model(pixels), batch)[0].sum().backward()
        optimiser.step()

    return step


def private(model: nn.Module, pixels: torch.Tensor, marked: list[tuple[torch.Tensor, torch.Tensor]]):
    """The same with every picture's gradient clipped, and noise."""
    from sfumato.core.gate import Gate, Plan
    from sfumato.mechanisms.gaussian import GaussianNoise, grid_for
    from sfumato.training.detect.loss import DetectionLoss, Targets
    from sfumato.training.engine import Clipping, Engine

    targets, loss = Targets.of(marked), DetectionLoss(model)
    engine = Engine(model, clipping=Clipping("flat", 1.0))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    plan = Plan(action="train", mechanism="benchmark", guarantee="heuristic", statement="nothing is released")
    noise = GaussianNoise(Gate().open(plan))
    grid = grid_for(1.0, sum(parameter.numel() for parameter in model.parameters()))

    def step() -> None:
        found = engine.gradients(lambda: loss(model(pixels), targets)).sum
        noise.add_to([value.numpy() for value in found.values()], 1.0, grid)
        for name, parameter in model.named_parameters():
            parameter.grad = found[name].div_(len(pixels))
        optimiser.step()

    return step


def alternate(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Medians of processor time: other work on the machine counts less than by the clock."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: median(values[1:]) for name, values in times.items()}


def main() -> None:
    given = arguments(__doc__ or "")
    import torchvision_stand_in

    if torchvision_stand_in.needed():
        torchvision_stand_in.put(Path(tempfile.mkdtemp()) / "torchvision")
    from sfumato.training.detect import _ultralytics as yolo
    from sfumato.training.detect.model import prepare

    if not yolo.available():
        report({}, ["left out: needs Ultralytics (AGPL-3.0): pip install sfumato[yolo]"], given.json)
        return
    torch.manual_seed(0)
    torch.set_num_threads(min(2, torch.get_num_threads()))
    count, rounds = (8, 5) if given.quick else (16, 15)
    stock = yolo.build("yolo26n.yaml", CLASSES).train()
    frozen, ours = prepare(deepcopy(stock)), prepare(deepcopy(stock))
    pixels, marked = torch.rand(count, 3, SIDE, SIDE), labels(count, SIDE)
    batch = package_batch(marked, SIDE)
    times = alternate(
        {
            "stock": ordinary(stock, pixels, batch, yolo.stock_criterion(stock, 10)),
            "frozen": ordinary(frozen, pixels, batch, yolo.stock_criterion(frozen, 10)),
            "private": private(ours, pixels, marked),
        },
        rounds + 2,
    )
    lines = [
        f"YOLO26n, {SIDE} pixels, {count} pictures, {torch.get_num_threads()} threads; processor ms a step:"
    ]
    lines += [f"  {name:8} {1e3 * value:7.0f}" for name, value in times.items()]
    report(
        {
            "yolo26n_time_ratio": times["private"] / times["stock"],
            "yolo26n_time_ratio_to_frozen": times["private"] / times["frozen"],
        },
        lines,
        given.json,
    )


if __name__ == "__main__":
    main()
