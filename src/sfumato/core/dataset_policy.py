"""[datasets.NAME]: what of a dataset may enter, and how coarse it has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from sfumato.core.column_policy import ColumnSection
from sfumato.core.policy_values import whole

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
#: Kinds of personal data, for the legal records of the report.
Category = Literal[
    "identifiers",
    "contact",
    "demographics",
    "health",
    "genetic",
    "biometric",
    "pictures",
    "location",
    "financial",
    "internet activity",
    "employment",
    "education",
    "inferences",
]
RuleKind = Literal["month", "year", "prefix", "band", "grid", "round"]

#: rule -> (what its number is, what it does); month and year take none.
RULES: dict[RuleKind, tuple[str, str]] = {
    "month": ("", "a date becomes its month"),
    "year": ("", "a date becomes its year"),
    "prefix": ("characters", "text, such as a postcode, is cut to its first characters"),
    "band": ("whole width", "a number, such as an age, becomes a band of this width"),
    "grid": ("step", "a coordinate moves to the nearest point of a grid"),
    "round": ("step", "a number is rounded to a multiple of this step"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One generalisation, written "month", "year", "prefix 3", "band 10", "grid 0.1" or "round 5".

    >>> Rule.parse("band 10")
    Rule(kind='band', size=Decimal('10'))
    """

    kind: RuleKind
    size: Decimal = Decimal(0)

    @classmethod
    def parse(cls, text: Any) -> Rule:
        """Read a rule.

        Raises:
            ValueError: not a rule; says what is.
        """
        if isinstance(text, Rule):
            return text
        match = re.fullmatch(r"(\w+)(?: +([0-9.eE+-]+))?", text.strip()) if isinstance(text, str) else None
        known = {kind: kind for kind in get_args(RuleKind)}
        if match is None or match[1] not in known:
            raise ValueError('a rule is "month", "year", "prefix 3", "band 10", "grid 0.1" or "round 5"')
        kind: RuleKind = known[match[1]]
        if not RULES[kind][0]:
            if match[2]:
                raise ValueError(f'"{kind}" takes no number')
            return cls(kind)
        try:
            size = Decimal(match[2] or "")
        except InvalidOperation:
            raise ValueError(f'"{kind}" needs a number ({RULES[kind][0]}), such as "{kind} 10"') from None
        if not 0 < size < 10**9 or (kind in ("prefix", "band") and size != int(size)):
            raise ValueError(f'"{kind}" needs a number above 0 ({RULES[kind][0]})')
        return cls(kind, size)

    def __str__(self) -> str:
        return f"{self.kind} {self.size}" if self.size else self.kind


RuleText = Annotated[Rule, BeforeValidator(Rule.parse), PlainSerializer(str)]


class DatasetSection(BaseModel):
    """[datasets.NAME]: an allow-list, and the rules for what is on it.

    Args:
        keep: columns, metadata and annotation fields that may enter; nothing else reaches the store.
        unit: the column, field or file rule that says which person a row or picture is about.
        population: whose budget pays for releases of it.
        purposes: what it was given for; a plan for any other purpose that names it is refused.
        generalise: column -> how coarse it becomes.
        quasi_identifiers: kept columns that together could point at somebody.
        sensitive: kept columns whose values nobody should learn; for l-diversity and t-closeness.
        partition: "subject" stores every person's rows on their own, so that they can be erased on their own.
        categories: kinds of personal data in it; source: where it was obtained. Both for the report.
        table: where a table lies that is asked questions and not taken in: a Parquet or CSV file (or a
            pattern), seen from the project's folder, or "postgresql://host/database#schema.table".
        release: of a table in a database, which nobody changes after it was declared: its name.
        columns: what is publicly known of its columns, for private queries.
        max_groups, max_rows: in how many groups of one answer a privacy unit counts, and how many of its
            rows in each; more is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    keep: tuple[str, ...] = ()
    unit: str = ""
    population: str = ""
    purposes: tuple[str, ...] = ()
    generalise: dict[str, RuleText] = {}
    quasi_identifiers: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    partition: Literal["whole", "subject"] = "whole"
    categories: tuple[Category, ...] = ()
    source: Annotated[str, Field(pattern=r"^[^\x00-\x1f]{0,300}$")] = ""
    table: Annotated[str, Field(pattern=r"^[^\x00-\x1f]{0,500}$")] = ""
    release: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,60}$")] = ""
    columns: dict[str, ColumnSection] = {}
    max_groups: Annotated[int, Field(ge=1, le=10**6), BeforeValidator(whole)] | None = None
    max_rows: Annotated[int, Field(ge=1, le=10**6), BeforeValidator(whole)] | None = None

    @model_validator(mode="after")
    def _on_the_list(self) -> DatasetSection:
        named = {
            "generalise": tuple(self.generalise),
            "quasi_identifiers": self.quasi_identifiers,
            "sensitive": self.sensitive,
        }
        if self.keep or not self.table:
            named["columns"] = tuple(name for name in self.columns if name != self.unit)
        for key, columns in named.items():
            if absent := [column for column in columns if column not in self.keep]:
                raise ValueError(
                    f"{key} names {absent[0]!r}, which keep does not: add it to keep, or remove it"
                )
        return self
