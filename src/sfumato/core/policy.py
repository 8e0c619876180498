"""The policy: `sfumato.toml` as frozen, checked objects.

[project]
name = "city-cameras"

[purposes.traffic-planning]
description = "How many people pass where, by hour"
actions = ["redact"]

[populations.residents]
unit = "person"
epsilon = 1
delta = 1e-6

[redact]
hide = ["face", "person"]
cover = "fill"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from sfumato.core.accounting import Kind
from sfumato.core.dataset_policy import DatasetName, DatasetSection
from sfumato.core.errors import PolicyError, SfumatoError, nearest
from sfumato.core.losses import ADD_OR_REMOVE
from sfumato.core.numbers import rational, text

FILE_NAME = "sfumato.toml"

#: What a plan can be about; a purpose lists those it allows.
ACTIONS = ("redact", "export")


def _exact(value: Any) -> Fraction:
    return rational(value)


def _spell(value: Fraction) -> Any:
    return text(value)


Exact = Annotated[Fraction, BeforeValidator(_exact), PlainSerializer(_spell)]
Name = Annotated[str, Field(pattern=r"^[^/\x00-\x1f]{1,100}$")]
Relation = Literal["add-or-remove-one", "replace-one"]
Unit = Literal["person", "patient", "vehicle", "household", "image"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ProjectSection(_Section):
    """[project]: what this is about."""

    name: Name
    description: str = ""


class Purpose(_Section):
    """[purposes.NAME]: what data may be used for, and which actions that takes."""

    description: str = ""
    lawful_basis: str = ""
    actions: tuple[Literal["redact", "export"], ...] = ("redact",)


class ShareSection(_Section):
    """[populations.NAME.shares.NAME]: a part of the budget, fixed once opened."""

    kind: Kind = "filter"
    epsilon: Exact
    delta: Exact = Fraction(0)


class Population(_Section):
    """[populations.NAME]: people, and the most privacy loss that they may ever suffer here."""

    unit: Unit
    relation: Relation = ADD_OR_REMOVE
    epsilon: Exact
    delta: Exact = Fraction(0)
    shares: dict[Name, ShareSection] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Population:
        for key in ("epsilon", "delta"):
            total = sum((getattr(share, key) for share in self.shares.values()), Fraction(0))
            if total > getattr(self, key):
                raise ValueError(
                    f"the shares' {key} adds up to {text(total)}, and the population has "
                    f"{text(getattr(self, key))}: make a share smaller"
                )
        if self.delta > 1:
            raise ValueError(f"delta is a probability and must lie in 0..1, got {text(self.delta)}")
        return self

    def opened_shares(self) -> dict[str, ShareSection]:
        """Return the shares to open: those declared, or one that holds the whole budget."""
        if self.shares:
            return dict(self.shares)
        return {"all": ShareSection(kind="filter", epsilon=self.epsilon, delta=self.delta)}


class Redact(_Section):
    """[redact]: defaults of `sfumato redact` in this project; the command line may ask for more, not less."""

    hide: tuple[str, ...] = ("face",)
    cover: str = "fill"
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    margins: dict[str, Annotated[float, Field(ge=0, le=2)]] = {}
    models: dict[str, Path] = {}
    every: Annotated[int, Field(ge=1, le=300)] = 5
    audio: Literal["copy", "mute", "drop"] = "copy"


class LedgerSection(_Section):
    """[ledger]: where the anchor lies; default: the user's state folder, outside the project."""

    anchor: Path | None = None


class Policy(_Section):
    """A whole policy, checked.

    >>> policy = Policy.parse('[project]\\nname = "demo"')
    >>> policy.redact.hide
    ('face',)
    """

    project: ProjectSection
    purposes: dict[Name, Purpose] = {}
    populations: dict[Name, Population] = {}
    datasets: dict[DatasetName, DatasetSection] = {}
    redact: Redact = Redact()
    ledger: LedgerSection = LedgerSection()

    @model_validator(mode="after")
    def _datasets_name_what_exists(self) -> Policy:
        for name, section in self.datasets.items():
            wanted = [("populations", section.population)] if section.population else []
            for key, value in [*wanted, *(("purposes", purpose) for purpose in section.purposes)]:
                if value not in getattr(self, key):
                    raise ValueError(f"datasets.{name} names {value!r}, and there is no [{key}.{value}]")
        return self

    @classmethod
    def parse(cls, source: str, *, where: str = FILE_NAME) -> Policy:
        """Read a policy from TOML text.

        Raises:
            PolicyError: not TOML, an unknown key (the nearest valid one is suggested), or a wrong value.
        """
        try:
            data = tomllib.loads(source, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{where} is not valid TOML: {error}") from error
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise PolicyError(_explain(error, where)) from error
        except SfumatoError as error:
            raise PolicyError(f"{where}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: the file cannot be read or does not parse.
        """
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"the policy {path} cannot be read: {error}") from error
        return cls.parse(source, where=str(path))

    def to_toml(self) -> str:
        """Return TOML text that parses to an equal policy."""
        import tomli_w

        data = self.model_dump(mode="python", exclude_defaults=True)
        return tomli_w.dumps(_toml(data))


def _toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _toml(item) for key, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)):
        return [_toml(item) for item in value]
    return str(value) if isinstance(value, (Path, Fraction)) else value


def _explain(error: ValidationError, where: str) -> str:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            allowed = _keys_at(Policy, item["loc"][:-1])
            near = nearest(str(item["loc"][-1]), allowed)
            hint = f"did you mean {near!r}?" if near else f"known keys here: {', '.join(sorted(allowed))}"
            lines.append(f"unknown key {path!r}; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{path!r} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], (dict, BaseModel)) else f", got {item['input']!s:.80}"
            lines.append(f"{path!r}: {message}{shown}")
    return f"{where} does not hold a valid policy: " + "; ".join(lines)


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `path` knows."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        elif get_origin(current) is dict:
            current = get_args(current)[1]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
