"""A run from its file to a model with a receipt: data, model, probe, charge, steps, release."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.gate import UNDECLARED
from sfumato.core.receipt import Receipt
from sfumato.training import models
from sfumato.training.batchnorm import Replaced, replace_batchnorm
from sfumato.training.config import Config
from sfumato.training.coupling import check
from sfumato.training.data import Form, Pictures, bright, from_folder, from_npz, from_use, scaled
from sfumato.training.features import Frozen, ScatterNet, features, linear_head
from sfumato.training.memory import kept_memory
from sfumato.training.plan import PlannedRun, plan_run
from sfumato.training.run import OnStep, TrainingRun, standing
from sfumato.training.settings import TrainingSettings

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.wrapping import Access

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Args:
        receipt: of the released model.
        path: where the model is.
        steps, seconds: taken, and how long they took.
        accuracy: on the public test pictures, 0..1; None where there are none.
        replaced: layers that were changed before training.
    """

    receipt: Receipt
    path: Path
    steps: int
    seconds: float
    accuracy: float | None
    replaced: tuple[Replaced, ...]


def explain(config: Config, project: Project) -> PlannedRun:
    """Return the plan of a run, with its price and noise; nothing is read and nothing is charged."""
    return plan_run(config.settings(), project.policy)


@dataclass
class Job:
    """A run that is ready to start: everything that can be refused was tried.

    Args:
        config: of the run.
        settings: with what the data's own rules add.
        data, test: pictures; `test` is public.
        extractor: makes features, or None.
        model: that is trained: a whole model, or the head on the features.
        replaced: layers that were changed.
        made: features, once they are made: copies of a job with another head share them.
    """

    config: Config
    settings: TrainingSettings
    data: Pictures
    test: Pictures | None
    extractor: nn.Module | None
    model: nn.Module
    replaced: tuple[Replaced, ...]
    device: torch.device
    made: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """One value per image."""
        return functional.cross_entropy(outputs, labels, reduction="none")

    def check(self) -> None:
        """Probe the model for coupling between images, on made-up ones.

        Raises:
            InvalidRequest: images are coupled.
        """
        check(self.model, self.loss, torch.zeros(1, *self._shape()), torch.zeros(1, dtype=torch.long))

    def _shape(self) -> tuple[int, ...]:
        if isinstance(self.model, nn.Linear):
            return (self.model.in_features,)
        form = self.data.form
        return (form.channels, form.side, form.side)

    def run(
        self,
        project: Project,
        *,
        resume: bool = False,
        on_step: Sequence[OnStep] = (),
        tell: Tell | None = None,
        guards: Sequence[Callable[[TrainingRun], None]] = (),
    ) -> Result:
        """Charge the run, take its steps, and release the model.

        Args:
            resume: take up the run that was left, at no further charge.
            on_step: called after each step; `Progress` holds nothing of the data.
            tell: (what, done, of) while features are made.
            guards: as in `TrainingRun.release`.

        Raises:
            PolicyRefused, BudgetSpent: nothing was charged.
            InvalidRequest: there is no run to take up.
        """
        from sfumato.training.loop import private

        config = self.config
        if resume:
            self._stands(project)
        optimiser, source = _optimiser(config, self.model), self._source(tell)
        with contextlib.ExitStack() as stack:
            calls = [*on_step, *_watchers(config, optimiser, stack)]
            opened = project.training(
                self.settings,
                checkpoint=config.out.checkpoint,
                resume=resume,
                on_step=calls,
                used=self.data.used,
            )
            run = stack.enter_context(opened)
            trained = private(
                self.model,
                self.loss,
                optimizer=optimiser,
                run=run,
                augment=self._augment(),
                ema=config.optimiser.ema,
                check=False,  # `prepare` did
            )
            start = time.monotonic()
            for number, batch in enumerate(trained.batches(source, units=self.units(run.planned.unit))):
                if number == 1:
                    stack.enter_context(kept_memory())
                _set_rate(optimiser, config, run.begun - 1, run.planned.steps)
                trained.step(batch)
                if run.begun % config.out.every == 0 and run.left:
                    trained.save()
            seconds = time.monotonic() - start
            if trained.ema is not None:
                stack.enter_context(trained.ema.applied(self.model))
            accuracy = self.accuracy() if self.test is not None else None
            receipt = run.release(self.model, config.out.model, facts=self._facts(), guards=guards)
        return Result(receipt, config.out.model, run.begun, seconds, accuracy, self.replaced)

    def _stands(self, project: Project) -> None:
        """Refuse to take up a run that is not there: it would be a new one, with a price of its own."""
        planned = plan_run(self.settings, project.policy)
        planned = planned if self.data.used is None else planned.of(self.data.used)
        if standing(project, planned, self.config.out.checkpoint) is None:
            raise InvalidRequest(
                "there is no run with these settings that was left unfinished: without --resume it is a new "
                "one, and is charged"
            )

    def _facts(self) -> dict[str, Any]:
        """What the receipt says beside the plan."""
        facts = self.config.facts() | {"classes": len(self.data.classes)}
        if self.data.used is not None:
            facts |= self.data.used.facts(proven=True)
        if self.replaced:
            facts["replaced"] = [f"{one.before} -> {one.after}" for one in self.replaced]
        return facts

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the part of the public test pictures that the model gets right."""
        assert self.test is not None
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        right = 0
        for start in range(0, len(self.test), 256):
            part = range(start, min(start + 256, len(self.test)))
            if self.extractor is not None:
                given = self._features("test", self.test, None)[start : part.stop]
            else:
                given = self.test.batch(part)[0]
            labels = self.test.labels[start : part.stop]
            right += int((self.model(given.to(self.device)).argmax(1).cpu() == labels).sum())
        for module, mode in modes:
            module.training = mode
        return right / len(self.test)

    def _source(self, tell: Tell | None) -> Any:
        """Return what batches are drawn from: features, or pictures."""
        if self.extractor is None:
            return self.data
        return self._features("train", self.data, tell), self.data.labels

    def _features(self, part: str, pictures: Pictures, tell: Tell | None) -> Tensor:
        assert self.extractor is not None
        if part not in self.made:
            told = (lambda done, of: tell("features", done, of)) if tell is not None else None
            pixels = pictures.bytes_of(range(len(pictures)))
            prepare = bright if isinstance(self.extractor, ScatterNet) else scaled
            self.made[part] = features(self.extractor, pixels, prepare=prepare, tell=told)
        return self.made[part]

    def units(self, unit: str) -> Sequence[Any] | None:
        """Return whose each image is; None where each is its own.

        Raises:
            InvalidRequest: the budget is of people, and the data do not say whose each image is.
        """
        if unit == "image":
            return None
        if not self.data.said:
            raise InvalidRequest(
                f"the population's privacy unit is {unit}, and the data do not say whose each picture is: "
                '[data] unit = "name:REGEX" for a folder, an array unit_train in an npz. Per picture would '
                "be another promise"
            )
        return self.data.units

    def _augment(self) -> Callable[[Tensor], Tensor] | None:
        kinds = self.config.train.augment
        if not kinds:
            return None
        return lambda images: augmented(images, flip="flip" in kinds, shift="shift" in kinds)


def prepare(config: Config, project: Project, *, access: Access | None = None) -> Job:
    """Read the data, build the model, and probe it; nothing is charged.

    Args:
        access: what may open the vault of a catalogue.

    Raises:
        InvalidRequest, PolicyRefused, BatchFailed: what could not be done.
    """
    torch.manual_seed(config.train.seed)  # of first weights and augmentation; noise has no seed
    data = _data(config, project, access)
    test = _read(config, config.data.test, data.classes, "test") if config.data.test is not None else None
    settings = config.settings()
    if data.used is not None:
        first = settings.population or (data.used.populations or ("",))[0]
        settings = replace(
            settings, datasets=data.used.datasets, population=first, consent=data.used.consent, epochs=0
        )
    device = _device(config.train.device)
    model, extractor, replaced = _model(config, data)
    model = model.to(device).train()
    job = Job(config, settings, data, test, extractor, model, replaced, device)
    job.units(plan_run(settings, project.policy).unit)
    job.check()
    return job


def augmented(images: Tensor, *, flip: bool, shift: bool) -> Tensor:
    """Return another view of each image: mirrored by a coin, moved by up to an eighth of its side.

    The chance is PyTorch's own and public; each view is of its own image alone.
    """
    count, _, side, _ = images.shape
    if flip:
        coins = torch.empty(count, device=images.device).uniform_() < 0.5
        images = torch.where(coins[:, None, None, None], images.flip(3), images)
    if shift and (most := side // 8):
        padded = functional.pad(images, (most,) * 4, mode="reflect")
        moves = torch.empty(2, count, device=images.device).uniform_(0, 2 * most + 1).long()
        at = torch.arange(side, device=images.device)
        rows, columns = (moves[0][:, None] + at)[:, None, :, None], (moves[1][:, None] + at)[:, None, None, :]
        index = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        images = padded[index, channel, rows, columns]
    return images


def _data(config: Config, project: Project, access: Access | None) -> Pictures:
    asked = config.data
    if not asked.dataset:
        path = asked.folder or asked.npz
        assert path is not None
        return _read(config, path, asked.classes, "train")
    from sfumato.data.use import use

    purpose = config.privacy.purpose or UNDECLARED
    used = use(project, asked.dataset, purpose, "train", access)
    return from_use(used, asked.label, _form(config), classes=asked.classes)


def _read(config: Config, path: Path, classes: Sequence[str], part: str) -> Pictures:
    if path.suffix == ".npz":
        return from_npz(path, part, classes=classes)
    unit = config.data.unit if part == "train" else "file"
    return from_folder(path, _form(config), classes=classes, unit=unit)


def _form(config: Config) -> Form:
    asked = config.data
    return Form(side=asked.side, channels=asked.channels, skip_bad=asked.skip_bad)


def _model(config: Config, data: Pictures) -> tuple[nn.Module, nn.Module | None, tuple[Replaced, ...]]:
    asked, form, classes = config.model, data.form, len(data.classes)
    if asked.features == "scattering":
        scatter = ScatterNet(form.side, channels=form.channels)
        return linear_head(scatter.width, classes), scatter, ()
    model = models.build(
        asked.name, classes=classes, channels=form.channels, size=form.side, pretrained=asked.pretrained
    )
    if asked.weights is not None:
        _load(model, asked.weights)
    if asked.features == "frozen":
        frozen = Frozen(model)
        with torch.no_grad():
            width = frozen(torch.zeros(1, form.channels, form.side, form.side)).shape[1]
        return linear_head(width, classes), frozen, ()
    replaced = tuple(replace_batchnorm(model, asked.batchnorm)) if asked.batchnorm else ()
    return model, None, replaced


def _load(model: nn.Module, path: Path) -> None:
    """Start from weights, but for layers of another shape, such as a head for other classes.

    Raises:
        InvalidRequest: nothing in the file fits.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("reading weights", ("safetensors",), "training") from error
    try:
        given = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise InvalidRequest(f"the weights {path} do not read as safetensors: {error}") from error
    own = model.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InvalidRequest(f"no tensor of {path} fits the model: is it of another one?")
    model.load_state_dict(fitting, strict=False)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidRequest(f'there is no {name} here: take device = "cpu", or "auto"')
    return torch.device(name)


def _optimiser(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    asked, parameters = config.optimiser, [p for p in model.parameters() if p.requires_grad]
    if asked.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=asked.lr, momentum=asked.momentum, weight_decay=asked.weight_decay
        )
    kind = torch.optim.Adam if asked.name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=asked.lr, weight_decay=asked.weight_decay)


def _set_rate(optimiser: torch.optim.Optimizer, config: Config, step: int, steps: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = config.optimiser.lr * config.optimiser.factor(step, steps)


def _watchers(
    config: Config, optimiser: torch.optim.Optimizer, stack: contextlib.ExitStack
) -> Iterator[OnStep]:
    from sfumato.training.callbacks import MLflow, TensorBoard

    def more() -> dict[str, float]:
        return {"learning_rate": float(optimiser.param_groups[0]["lr"])}

    if config.out.tensorboard is not None:
        yield stack.enter_context(TensorBoard(config.out.tensorboard, more=more))
    if config.out.mlflow:
        yield stack.enter_context(MLflow(config.out.mlflow, more=more))
