"""A training run in one file, for `sfumato train`: strict, so that a typo cannot change what is promised.

[data]
folder = "pictures"          # one folder per class; or npz = "..."; or dataset = "clinic", label = "kind"
side = 32

[model]
name = "resnet18-gn"

[privacy]
epsilon = 3
delta = 1e-5
public_size = 50000          # a number that may be known: never the exact count of private pictures
expected_batch = 1024

[optimiser]
lr = 0.5

[train]
epochs = 20

[out]
model = "model.safetensors"
"""

from __future__ import annotations

import math
import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from sfumato.core.errors import InvalidRequest, SfumatoError, nearest
from sfumato.core.numbers import text
from sfumato.core.policy_values import Exact
from sfumato.training.settings import ClippingKind, Mechanism, Precision, TrainingSettings

Augment = Literal["flip", "shift"]
Features = Literal["", "scattering", "frozen"]
Schedule = Literal["constant", "linear", "cosine"]


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Part = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[StrictInt, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class DataSection(_Section):
    """[data]: what is learnt from, and whose it is.

    Args:
        folder: one folder per class. npz: arrays x_train, y_train. dataset: a version of the catalogue, with
            the field `label`, for [privacy] purpose. One of the three.
        test: a folder or npz of the same kind to measure on; it gets no protection, so it must be public.
        side, channels: of the squares that pictures are made into; an npz has its own.
        classes: names in order; empty: those that are there.
        unit: of a folder: "file", or "name:REGEX"; a catalogue and an npz know their own.
        skip_bad: leave pictures out that do not read, instead of refusing all.
    """

    folder: Path | None = None
    npz: Path | None = None
    dataset: str = ""
    label: str = ""
    test: Path | None = None
    side: StrictInt = 32
    channels: Literal[1, 3] = 3
    classes: tuple[str, ...] = ()
    unit: str = "file"
    skip_bad: StrictBool = False

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        given = [n for n in ("folder", "npz", "dataset") if getattr(self, n)]
        if len(given) != 1:
            raise ValueError(f"name one of folder, npz and dataset, got {' and '.join(given) or 'none'}")
        if bool(self.dataset) != bool(self.label):
            raise ValueError("dataset and label (the field that says the class) go together")
        return self


class ModelSection(_Section):
    """[model]: what is trained.

    Args:
        name: of the catalogue, or "timm:NAME".
        features: "scattering": a linear head on fixed features, and `name` is left out; "frozen": a linear
            head on what the model computes before its last layer, with public weights.
        weights: a safetensors file to start from; it must have been made without private data.
        pretrained: timm's public weights.
        batchnorm: "group" or "freeze": what is done where the model has BatchNorm.
    """

    name: str = ""
    features: Features = ""
    weights: Path | None = None
    pretrained: StrictBool = False
    batchnorm: Literal["", "group", "freeze"] = ""

    @model_validator(mode="after")
    def _fits(self) -> ModelSection:
        if (self.features == "scattering") == bool(self.name):
            raise ValueError('give a name, or features = "scattering" and no name')
        if self.features == "frozen" and not (self.weights or self.pretrained):
            raise ValueError("frozen features need public weights: pretrained = true, or weights = FILE")
        return self


class PrivacySection(_Section):
    """[privacy]: what is promised, and who pays; see `TrainingSettings`."""

    epsilon: Exact = Fraction(0)
    noise_multiplier: Exact = Fraction(0)
    delta: Exact = Fraction(0)
    rate: Exact = Fraction(0)
    expected_batch: Exact = Fraction(0)
    public_size: Count = 0
    clip: Positive = 1.0
    clipping: ClippingKind = "flat"
    images_per_unit: Count = 0
    mechanism: Mechanism = "dp-sgd"
    bands: Count = 1
    population: str = ""
    share: str = ""
    purpose: str = ""


class OptimiserSection(_Section):
    """[optimiser]: how noisy gradients become steps; free, if it was not chosen by looking at private data.

    Args:
        name: "sgd", "adam" or "adamw".
        lr: learning rate.
        schedule: of the learning rate over the run: constant, linear or cosine, down to 0.
        momentum: of sgd.
        weight_decay: as the optimiser has it.
        ema: the part of an average over steps that is kept at each; above 0 the average is released.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.5
    schedule: Schedule = "constant"
    momentum: Part = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    ema: Part = 0.0

    @model_validator(mode="after")
    def _momentum_is_sgd_s(self) -> OptimiserSection:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum is of sgd, and the optimiser is {self.name}")
        return self

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by at a step, from 0."""
        done = step / steps
        if self.schedule == "linear":
            return 1 - done
        return (1 + math.cos(math.pi * done)) / 2 if self.schedule == "cosine" else 1.0


class TrainSection(_Section):
    """[train]: how long, and what fits into memory.

    Args:
        steps, epochs: one of them: steps, or how often each unit is seen on average.
        physical_batch: images worked on at once.
        views: augmented views of each image, averaged before clipping.
        augment: "flip" (left and right), "shift" (by up to an eighth of the side).
        precision: of forward and backward.
        device: "auto", "cpu", "cuda" or "cuda:1".
        seed: of the model's first weights and of augmentation, never of noise or sampling.
    """

    steps: Count = 0
    epochs: Exact = Fraction(0)
    physical_batch: Annotated[StrictInt, Field(ge=1)] = 256
    views: Annotated[StrictInt, Field(ge=1)] = 1
    augment: tuple[Augment, ...] = ()
    precision: Precision = "float32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?|mps)$")] = "auto"
    seed: Count = 0

    @model_validator(mode="after")
    def _views_differ(self) -> TrainSection:
        if self.views > 1 and not self.augment:
            raise ValueError("views that are all the same add nothing: name augment as well")
        return self


class OutSection(_Section):
    """[out]: where the model goes, with its receipt beside it; and who watches.

    Args:
        model: a safetensors file.
        checkpoint: default: in the run's folder of the project.
        every: steps between two checkpoints.
        tensorboard: a folder. mlflow: an experiment. Both get public quantities alone.
    """

    model: Path = Path("model.safetensors")
    checkpoint: Path | None = None
    every: Annotated[StrictInt, Field(ge=1)] = 50
    tensorboard: Path | None = None
    mlflow: str = ""


class Config(_Section):
    """One run.

    >>> config = Config.parse('''
    ... [data]
    ... npz = "fashion.npz"
    ... [model]
    ... features = "scattering"
    ... [privacy]
    ... epsilon = 3
    ... delta = 1e-5
    ... public_size = 60000
    ... expected_batch = 8192
    ... [train]
    ... epochs = 40
    ... ''')
    >>> config.settings().steps
    293
    """

    data: DataSection
    model: ModelSection
    privacy: PrivacySection
    optimiser: OptimiserSection = OptimiserSection()
    train: TrainSection
    out: OutSection = OutSection()

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read a file; its relative paths are from its own folder.

        Raises:
            InvalidRequest: it does not read, has unknown keys, or does not add up.
        """
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the run {path} cannot be read: {error}") from error
        return cls.parse(source, where=str(path)).below(path.resolve().parent)

    @classmethod
    def parse(cls, source: str, *, where: str = "the run") -> Config:
        """Read TOML text.

        Raises:
            InvalidRequest: as `read`.
        """
        try:
            data = tomllib.loads(source, parse_float=Decimal)
        except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where} is not valid TOML: {error}") from error
        return cls._checked(data, where)

    @classmethod
    def _checked(cls, data: Any, where: str) -> Config:
        try:
            config = cls.model_validate(data)
            config.settings()
        except ValidationError as error:
            raise InvalidRequest(f"{where} does not hold a valid run: {_explain(error)}") from error
        except SfumatoError as error:
            raise type(error)(f"{where}: {error}") if type(error) is InvalidRequest else error from error
        return config

    def below(self, folder: Path) -> Config:
        """Return it with relative paths taken from a folder."""
        data = self.model_dump()
        for section in data.values():
            for key, value in section.items():
                if isinstance(value, Path):
                    section[key] = folder / value
        return type(self).model_validate(data)

    def with_privacy(self, **values: Any) -> Config:
        """Return it with other values in [privacy], as options of the command line give them."""
        data = self.model_dump()
        if values.get("epsilon"):
            data["privacy"]["noise_multiplier"] = Fraction(0)
        data["privacy"] |= values
        return self._checked(data, "the run")

    def settings(self) -> TrainingSettings:
        """Return what the run asks of the ledger."""
        asked = self.privacy.model_dump()
        asked["purpose"] = asked["purpose"] or TrainingSettings.__dataclass_fields__["purpose"].default
        asked |= {"steps": self.train.steps, "epochs": self.train.epochs}
        asked |= {name: getattr(self.train, name) for name in ("physical_batch", "views", "precision")}
        return TrainingSettings(**asked)

    def facts(self) -> dict[str, Any]:
        """Return what the receipt says beside the plan: plain data, no paths and no names of people."""
        model, optimiser = self.model, self.optimiser
        said = {"name": model.name, "features": model.features, "pretrained": model.pretrained}
        return {
            "model": {key: value for key, value in said.items() if value},
            "optimiser": {k: v for k, v in optimiser.model_dump().items() if v},
            "augment": list(self.train.augment),
        }


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            allowed = _keys_at(item["loc"][:-1])
            near = nearest(str(item["loc"][-1]), allowed)
            hint = f"did you mean {near!r}?" if near else f"known keys here: {', '.join(sorted(allowed))}"
            lines.append(f"unknown key {path!r}; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{path!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item["input"]
            plain = isinstance(given, dict | BaseModel) or ", got " in message
            shown = text(given) if isinstance(given, Fraction) else str(given)
            lines.append(f"{path!r}: {message}" + ("" if plain else f", got {shown:.80}"))
    return "; ".join(lines)


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `path` knows."""
    current: Any = Config
    for part in path:
        current = current.model_fields[str(part)].annotation
    return list(current.model_fields)
