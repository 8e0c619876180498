"""A detector fine-tuned privately: opened, probed, charged, trained, written with its receipt.

train_detector(DetectorTraining(detector="yolo26n.pt", data=Path("data.yaml"), out=Path("private.pt"),
                                privacy=TrainingSettings(epsilon=8, delta="1e-5", ...)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.plugins import need
from sfumato.core.project import Project
from sfumato.training.detect import _ultralytics as yolo
from sfumato.training.detect.data import Dataset, unit_table
from sfumato.training.detect.loss import DetectionLoss, Targets
from sfumato.training.detect.model import Steady, open_detector, origin, prepare
from sfumato.training.detect.probing import probe_detector
from sfumato.training.detect.settings import DetectorTraining
from sfumato.training.engine import Clipping, Engine
from sfumato.training.loop import Private
from sfumato.training.run import OnStep, TrainingRun, open_run
from sfumato.training.settings import fraction

if TYPE_CHECKING:
    from sfumato.core.receipt import Receipt

#: Bytes of a key.
_KEY = 32

#: What the guarantee rests on beside what the plan says.
ASSUMES = (
    "It assumes that the weights which training began with, and the BatchNorm statistics in them, were made "
    "from public data.",
    "It assumes that the pictures which others were set beside (mosaics) are public.",
)


@dataclass(frozen=True, slots=True)
class TrainedDetector:
    """What a private training of a detector left.

    Args:
        weights: the `.pt` file; the receipt lies beside it.
        onnx: the same model for onnxruntime; None where none was asked for.
        receipt: what was charged, and what the guarantee is.
    """

    weights: Path
    onnx: Path | None
    receipt: Receipt


class Feed:
    """Pictures by number, for the private loop: it has numbers, and gets pixels, with the labels beside.

    Args:
        data: the pictures.
        views: how many times each is shown in a step.
        device: where the pixels go.
    """

    def __init__(self, data: Dataset, views: int, device: torch.device) -> None:
        self.data, self.views, self.device = data, views, device
        self.step = 0
        self.targets = Targets.of([])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Return a picture's number, twice: what it becomes depends on the step."""
        return index, index

    def __call__(self, numbers: Tensor) -> Tensor:
        """Return the pixels, (n, 3, side, side) in 0..1; every number comes once per view, in a row."""
        made = self.data.batch(numbers[:: self.views].tolist(), self.step, self.views)
        self.targets = made.targets.to(self.device, torch.float32)
        return made.pixels.to(self.device, non_blocking=True).float().div_(255)


def train_detector(
    asked: DetectorTraining,
    *,
    project: Project | None = None,
    resume: bool = False,
    checkpoint: Path | None = None,
    on_step: Iterable[OnStep] = (),
    entropy: Entropy = SYSTEM,
) -> TrainedDetector:
    """Fine-tune a YOLO detector so that it tells nothing of any one picture, person or patient.

    Guarantee (proven):
        The files written are (epsilon, delta)-differentially private as the receipt states, for the
        population's unit with all its pictures and labels, add-or-remove-one; on the assumption that the
        detector's file and the public pictures were made without the private data, and that all settings
        are public. See docs/guarantees/detectors.md.

    Args:
        asked: what to train, and how.
        project: whose budget pays; None: the one of the current folder.
        resume: take up the run that was left with these settings.
        checkpoint: where the run's state is kept; None: in the project.
        on_step: called after each step.
        entropy: of the noise; a seeded one is for tests.

    Raises:
        MissingExtra: Ultralytics is not installed.
        PolicyRefused, BudgetSpent, IntegrityError: nothing was charged.
        InvalidRequest: data, detector or settings that do not do.
    """
    yolo.require()
    project = project or Project.find()
    if project is None:
        raise PolicyRefused(
            "private training spends a privacy budget, and there is no project here to charge. Run `sfumato "
            "init` in the folder of your data, declare a population, and try again.",
            rule="populations",
        )
    onnx = [asked.out.with_suffix(".onnx")] if asked.onnx else []
    if there := [path for path in (asked.out, *onnx) if path.exists()]:
        raise InvalidRequest(f"{there[0]} exists already: name another file")
    if asked.onnx:
        need("an ONNX file of the detector (or onnx=False)", ("onnx",), "yolo")
    units = unit_table(asked.units) if asked.units is not None else None
    data = Dataset(asked.data, units=units, side=asked.side, augment=asked.augment, public=asked.public)
    model = Steady(prepare(open_detector(asked.detector, data.names), asked.freeze)).to(_device(asked))
    probe_detector(model, DetectionLoss(model.detector, asked.gains))
    with open_run(
        project,
        asked.privacy,
        checkpoint=checkpoint,
        resume=resume,
        on_step=on_step,
        entropy=entropy,
        assumes=ASSUMES,
    ) as run:
        private = _trained(asked, run, model, data, None if units is None else data.units)
        return _released(asked, run, private, model, data.names)


def _trained(
    asked: DetectorTraining, run: TrainingRun, model: Steady, data: Dataset, units: tuple[str, ...] | None
) -> Private:
    """Take the steps that are left."""
    settings = run.settings
    data.key = run.permit.entropy.bytes(_KEY)
    device = next(model.parameters()).device
    feed = Feed(data, settings.views, device)
    rate = float(fraction(settings.rate))
    loss = DetectionLoss(model.detector, asked.gains, epochs=max(1, round(settings.steps * rate)))
    optimiser = _optimiser(asked, model)
    # In half precision a box may fall to another anchor when it is computed once more in another order: no
    # two runs agree, and the engine's look at the first batch would refuse what is right.
    engine = Engine(
        model,
        clipping=Clipping(settings.clipping, float(settings.clip)),
        verify=settings.precision == "float32",
    )
    private = Private(
        model,
        lambda outputs, _: loss(outputs, feed.targets, (feed.step - 1) * rate),
        optimizer=optimiser,
        run=run,
        augment=feed,
        ema=asked.ema,
        engine=engine,
    )
    for batch in private.batches(feed, units=units):
        feed.step = batch.number
        for group in optimiser.param_groups:
            group["lr"] = asked.rate_at(batch.number - 1, settings.steps)
        private.step(batch)
        # After the last step too: if the files cannot be written, the run is taken up and writes them.
        if asked.checkpoint_every and (batch.number % asked.checkpoint_every == 0 or not run.left):
            private.save()
    return private


def _released(
    asked: DetectorTraining, run: TrainingRun, private: Private, model: Steady, names: dict[int, str]
) -> TrainedDetector:
    """Write the files, with the averaged weights, and end the run."""
    onnx = asked.out.with_suffix(".onnx") if asked.onnx else None

    def weights(path: Path) -> None:
        with _averaged(private, model):
            yolo.save(model.detector, path, names)

    writes: dict[Path, Callable[[Path], None]] = {asked.out: weights}
    if onnx is not None:
        writes[onnx] = lambda path: _export(weights, path)
    receipt = run.release_files(
        writes,
        asked.out.with_name(asked.out.name + ".receipt.json"),
        facts={"detector": asked.facts() | {"from": origin(asked.detector)}},
    )
    return TrainedDetector(asked.out, onnx, receipt)


def _averaged(private: Private, model: nn.Module) -> Any:
    """Return a context in which the model has its averaged weights."""
    import contextlib

    return private.ema.applied(model) if private.ema is not None else contextlib.nullcontext()


def _export(weights: Callable[[Path], None], path: Path) -> None:
    """Write the model as ONNX, by Ultralytics in a process of its own."""
    import tempfile

    from sfumato.vision import models
    from sfumato.vision.export import exported

    with tempfile.TemporaryDirectory(prefix="sfumato-detector-") as folder:
        source = Path(folder) / "detector.pt"
        weights(source)
        path.write_bytes(exported(models.load("yolo26", source)))


def _device(asked: DetectorTraining) -> torch.device:
    try:
        device = torch.device(asked.device)
    except RuntimeError as error:
        raise InvalidRequest(f"there is no device {asked.device!r}: give cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidRequest("device='cuda' was asked for, and PyTorch sees no GPU here: give device='cpu'")
    return device


def _optimiser(asked: DetectorTraining, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser; scales, shifts and biases do not decay."""
    groups = [
        {"params": list(part), "weight_decay": decay}
        for part, decay in ((_of(model, True), asked.weight_decay), (_of(model, False), 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if asked.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=asked.lr, betas=(asked.momentum, 0.999))
    return torch.optim.SGD(groups, lr=asked.lr, momentum=asked.momentum, nesterov=asked.momentum > 0)


def _of(model: nn.Module, matrices: bool) -> Iterator[nn.Parameter]:
    """Yield trainable parameters with, or without, more than one dimension."""
    for parameter in model.parameters():
        if parameter.requires_grad and (parameter.ndim > 1) == matrices:
            yield parameter
