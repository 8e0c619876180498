"""The policy: `sfumato.toml` as frozen, checked objects.

[project]
name = "city-cameras"

[purposes.traffic-planning]
description = "How many people pass where, by hour"
lawful_basis = "public task"
actions = ["redact", "query"]
expires = 2030-12-31

[datasets.junction-4]
purposes = ["traffic-planning"]
population = "residents"

[roles]
owner = ["maria", "uid:1002"]
analyst = ["jan"]

[populations.residents]
unit = "person"
epsilon = 1
delta = 1e-6

[redact]
hide = ["face", "person"]
cover = "fill"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sfumato.core.accounting import Kind
from sfumato.core.blocks import check_rule
from sfumato.core.dataset_policy import DatasetName, DatasetSection
from sfumato.core.errors import InvalidRequest, PolicyError, SfumatoError, nearest
from sfumato.core.losses import ADD_OR_REMOVE
from sfumato.core.numbers import text
from sfumato.core.policy_values import (
    PIXELS,
    WITNESS_URL,
    Day,
    Days,
    Exact,
    Line,
    Name,
    PopulationName,
    Relation,
    Unit,
    User,
    readable,
    whole,
)
from sfumato.core.roles import Role

FILE_NAME = "sfumato.toml"

#: What a plan can be about; a purpose lists those it allows.
ACTIONS = ("redact", "query", "train", "export", "erase", "restore")
#: What a person may ask for whatever the purposes say (GDPR Art. 17): none is needed, none can forbid it.
RIGHTS = ("erase",)

#: GDPR, article 6(1); another law's basis is written "other: ...".
LAWFUL_BASES = (
    "consent",
    "contract",
    "legal obligation",
    "vital interests",
    "public task",
    "legitimate interests",
)
#: "other: consent (LGPD)" would switch the check of consent off; "other: waiver of consent" is no consent.
CONSENT = re.compile(
    r"other: +((explicit|informed|written|parental|broad|patient) +)*consent\b", re.IGNORECASE
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ProjectSection(_Section):
    """[project]: what this is about, and who answers for it.

    Args:
        controller, contact: who decides on the data, and how to reach them (GDPR Art. 30(1)(a)).
        dpo: the data protection officer.
    """

    name: Name
    description: str = ""
    controller: Line = ""
    contact: Line = ""
    dpo: Line = ""


class Purpose(_Section):
    """[purposes.NAME]: what data may be used for, by whom, until when, and which actions that takes.

    Args:
        lawful_basis: one of LAWFUL_BASES or "other: ..."; "consent" makes the gate ask for it.
        expires: the last day of use (UTC).
        roles: who may use it, among those who have the right to the action; empty: all of them.
        compatible_with: purposes whose data may be used for this one too; explicit, never passed on.
        recipients: who receives what is released; transfers: to which countries, and by which safeguard.
    """

    description: str = ""
    lawful_basis: str = ""
    actions: tuple[Literal["redact", "query", "train", "export", "erase", "restore"], ...] = ("redact",)
    expires: Day | None = None
    roles: tuple[Role, ...] = ()
    compatible_with: tuple[Name, ...] = ()
    recipients: tuple[Line, ...] = ()
    transfers: Line = ""

    @field_validator("lawful_basis")
    @classmethod
    def _known(cls, value: str) -> str:
        # A mistyped "consent" would switch the check of consent off.
        if value and value not in LAWFUL_BASES and not value.startswith("other: "):
            raise ValueError(f'must be one of {", ".join(LAWFUL_BASES)}, or begin with "other: "')
        if value.startswith("other: ") and not value.removeprefix("other: ").strip():
            raise ValueError('"other: " says no basis: write which')
        if CONSENT.match(value):
            raise ValueError(
                'a basis that is consent is asked for only where it says so: write "consent", and the law in '
                "the description"
            )
        return value


class RolesSection(_Section):
    """[roles]: who is what; a user by name or "uid:1000", a token as "token:NAME". One role each."""

    owner: tuple[User, ...]
    curator: tuple[User, ...] = ()
    analyst: tuple[User, ...] = ()
    auditor: tuple[User, ...] = ()

    @model_validator(mode="after")
    def _one_role_each(self) -> RolesSection:
        if not self.owner:
            raise ValueError("name at least one owner, or nobody could change anything")
        if any(user.startswith("token:") for user in self.owner):
            raise ValueError("a token is never an owner: its maker could be two owners at once")
        users = [user for names in self.members().values() for user in names]
        if twice := sorted({user for user in users if users.count(user) > 1}):
            raise ValueError(f"{twice[0]!r} has more than one role; a user has one")
        return self

    def members(self) -> dict[Role, tuple[str, ...]]:
        """Return the users of each role."""
        return {
            "owner": self.owner,
            "curator": self.curator,
            "analyst": self.analyst,
            "auditor": self.auditor,
        }


class ShareSection(_Section):
    """[populations.NAME.shares.NAME]: a part of the budget, fixed once opened.

    Args:
        users: who alone may spend it; empty: whoever may make the release.
    """

    kind: Kind = "filter"
    epsilon: Exact
    delta: Exact = Fraction(0)
    users: tuple[User, ...] = ()


class Population(_Section):
    """[populations.NAME]: people, and the most privacy loss that they may ever suffer here.

    Args:
        unit: one of UNITS, or "16 pixels" for covers that protect pixels, such as dp-pixelate.
        blocks: "enrolment month|quarter|year" or "hash N": parts that share nobody, each with this budget.
    """

    unit: Unit
    relation: Relation = ADD_OR_REMOVE
    epsilon: Exact
    delta: Exact = Fraction(0)
    blocks: str = ""
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
        if self.pixels and self.relation != "replace-one":
            raise ValueError(
                f'a population of {self.unit} has relation = "replace-one": pixels are never added'
            )
        if self.delta > 1:
            raise ValueError(f"delta is a probability and must lie in 0..1, got {text(self.delta)}")
        try:
            check_rule(self.blocks, self.relation)
        except InvalidRequest as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def pixels(self) -> int:
        """How many pixels may differ between neighbours; 0 where the unit is somebody."""
        found = PIXELS.match(self.unit)
        return int(found[1]) if found else 0

    def opened_shares(self) -> dict[str, ShareSection]:
        """Return the shares to open: those declared, or one that holds the whole budget."""
        if self.shares:
            return dict(self.shares)
        return {"all": ShareSection(kind="filter", epsilon=self.epsilon, delta=self.delta)}


class ZoneSection(_Section):
    """[[redact.zones]]: a fixed place that is covered in every picture and frame.

    Args:
        points: corners (x, y) as shares of the upright picture, 0..1; or in pixels, where `size` is given.
        size: (width, height) of the pictures that it is for; without it, pictures of every size.
        files: pattern of the files that it is for, such as "cam1/*.mp4".
        cover: how it is covered; default: as the rest.
    """

    name: Annotated[str, Field(pattern=r"^[^/@,\x00-\x1f]{1,100}$"), AfterValidator(readable)]
    points: Annotated[tuple[tuple[float, float], ...], Field(min_length=3)]
    size: tuple[int, int] | None = None
    files: str = "*"
    cover: str = ""

    @model_validator(mode="after")
    def _inside(self) -> ZoneSection:
        width, height = self.size or (1, 1)
        if not all(0 <= x <= width and 0 <= y <= height for x, y in self.points):
            unit = f"pixels of {width}x{height}" if self.size else "shares in 0..1; pixels need size as well"
            raise ValueError(f"the corners of the zone {self.name!r} must be {unit}")
        return self


class Redact(_Section):
    """[redact]: defaults of `sfumato redact` in this project; the command line may ask for more, not less.

    Args:
        covers: class -> cover, where it is another than `cover`.
        zones: fixed places that are always covered.
        allow: what a caller may lessen: "keep" things or zones visible, hide "only" some of the above.
        seal: keep what is hidden in files, encrypted under the vault's keys, for a lawful restore.
    """

    hide: tuple[str, ...] = ("face",)
    cover: str = "fill"
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    margins: dict[str, Annotated[float, Field(ge=0, le=2)]] = {}
    models: dict[str, Path] = {}
    every: Annotated[int, Field(ge=1, le=300), BeforeValidator(whole)] = 5
    audio: Literal["copy", "mute", "drop"] = "copy"
    subtitles: Literal["drop", "copy"] = "drop"
    covers: dict[str, str] = {}
    zones: tuple[ZoneSection, ...] = ()
    allow: tuple[Literal["keep", "only"], ...] = ()
    seal: bool = False

    @field_validator("zones")
    @classmethod
    def _one_name_each(cls, value: tuple[ZoneSection, ...]) -> tuple[ZoneSection, ...]:
        names = [zone.name for zone in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two zones are called {twice[0]!r}: give each a name of its own")
        return value


class Retention(_Section):
    """[retention]: after how many days data must go; a dataset's own number goes before the general one."""

    days: Days | None = None
    datasets: dict[Name, Days] = {}

    def days_of(self, dataset: str) -> int | None:
        """Return after how many days a dataset's data must go; None: it may stay."""
        return self.datasets.get(dataset, self.days)


class LedgerSection(_Section):
    """[ledger]: where the book and its anchors are.

    Args:
        anchor: the file that remembers the newest head; default: in the user's state folder.
        url: the book's PostgreSQL database; default: a file in the project.
        witness: a server that remembers the newest head too (`python -m sfumato.core.witness`).
        witness_required: refuse every charge while the witness does not answer.
    """

    anchor: Path | None = None
    url: Annotated[str | None, Field(pattern=r"^postgres(ql)?://\S+$", repr=False)] = None
    witness: Annotated[str | None, Field(pattern=WITNESS_URL)] = None
    witness_required: bool = True


class Policy(_Section):
    """A whole policy, checked.

    >>> policy = Policy.parse('[project]\\nname = "demo"')
    >>> policy.redact.hide
    ('face',)
    """

    project: ProjectSection
    purposes: dict[Name, Purpose] = {}
    populations: dict[PopulationName, Population] = {}
    datasets: dict[DatasetName, DatasetSection] = {}
    roles: RolesSection | None = None
    redact: Redact = Redact()
    retention: Retention = Retention()
    ledger: LedgerSection = LedgerSection()

    @model_validator(mode="after")
    def _refers_to_what_is_declared(self) -> Policy:
        for name, purpose in self.purposes.items():
            key = f"purposes.{name}.compatible_with"
            _declared(key, purpose.compatible_with, self.purposes)
            for other in purpose.compatible_with:
                if self.purposes[other].lawful_basis == "consent":
                    raise ValueError(
                        f"{key} names {other!r}, which rests on consent: people agreed to that and nothing "
                        "else. Ask them for this purpose too"
                    )
        for name, dataset in self.datasets.items():
            _declared(f"datasets.{name}.purposes", dataset.purposes, self.purposes)
            if dataset.population:
                _declared(f"datasets.{name}.population", (dataset.population,), self.populations)
                if self.populations[dataset.population].pixels:
                    raise ValueError(
                        f"datasets.{name}.population names {dataset.population!r}, whose unit is pixels: a "
                        "dataset is about somebody, whose budget must pay. Name a population of people"
                    )
        return self

    @classmethod
    def parse(cls, source: str, *, where: str = FILE_NAME) -> Policy:
        """Read a policy from TOML text.

        Raises:
            PolicyError: not TOML, an unknown key (the nearest valid one is suggested), or a wrong value.
        """
        try:
            data = tomllib.loads(source, parse_float=Decimal)
        except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
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


def _declared(key: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"declared: {', '.join(sorted(known)) or 'none'}"
            raise ValueError(f"{key} names {name!r}, which is not declared; {hint}")


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
            hidden = item["loc"][:1] == ("ledger",) or isinstance(item["input"], (dict, BaseModel))
            shown = (
                "" if hidden or ", got " in message else f", got {item['input']!s:.80}"
            )  # a ledger's URL may hold a password
            lines.append(f"{path!r}: {message}{shown}" if path else message)
    return f"{where} does not hold a valid policy: " + "; ".join(lines)


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at `path` knows."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        elif get_origin(current) is tuple:
            current = get_args(current)[0]
        elif get_origin(current) is dict:
            current = get_args(current)[1]
        if type(None) in get_args(current):  # an optional section
            current = get_args(current)[0]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
