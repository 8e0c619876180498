"""Kinds of values in sfumato.toml, checked as they are read."""

from __future__ import annotations

import re
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from sfumato.core.errors import nearest
from sfumato.core.numbers import rational, text

#: Whom a budget protects; or "16 pixels": any 16 of them.
UNITS = ("person", "patient", "vehicle", "household", "image")
PIXELS = re.compile(r"([1-9][0-9]{0,5}) pixels\Z")


def _exact(value: Any) -> Fraction:
    return rational(value)


def _spell(value: Fraction) -> Any:
    return text(value)


#: Plain http only to this machine: anyone on the way could answer with an old head.
WITNESS_URL = r"^(https://[^/@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/\S*)?$"


def _day(value: Any) -> date:
    if type(value) is not date:  # a datetime is a date too, and a number would be taken for seconds
        raise ValueError("write a day without quotes, as in 2030-12-31")
    return value


def readable(value: str) -> str:
    """Return a name as it is, or raise ValueError for one that only looks like another."""
    # Two names that look the same would be two purposes, or two people.
    if value != value.strip():
        raise ValueError("a name that begins or ends with a space")
    if not value.isprintable():
        raise ValueError("a name with a character that cannot be printed")
    return value


def _user(value: str) -> str:
    kind, colon, rest = value.partition(":")
    if colon and not (kind == "token" and rest) and not (kind == "uid" and NUMBER.match(rest)):
        raise ValueError('a user is a login name, "uid:1000" or "token:NAME"')  # another would match nobody
    return value


def whole(value: Any) -> Any:
    """Return a value that may be a whole number; ValueError for what would be taken for one."""
    if isinstance(value, (bool, str)):  # true would be taken for one day
        raise ValueError("must be a whole number")
    return value


def _unit(value: str) -> str:
    if value not in UNITS and not PIXELS.match(value):
        near = f"; did you mean {found!r}?" if (found := nearest(value, UNITS)) else ""
        raise ValueError(f'must be one of {", ".join(UNITS)}, or a number of pixels ("16 pixels"){near}')
    return value


NUMBER = re.compile(r"(0|[1-9][0-9]{0,9})\Z")
Day = Annotated[date, BeforeValidator(_day)]
Days = Annotated[int, Field(ge=0, le=36500), BeforeValidator(whole)]
Exact = Annotated[Fraction, BeforeValidator(_exact), PlainSerializer(_spell)]
User = Annotated[
    str, Field(pattern=r"^[^/\s\x00-\x1f]{1,100}$"), AfterValidator(readable), AfterValidator(_user)
]
Name = Annotated[str, Field(pattern=r"^[^/\x00-\x1f]{1,100}$"), AfterValidator(readable)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{0,300}$")]
#: A # parts a population from one of its blocks in the ledger.
PopulationName = Annotated[str, Field(pattern=r"^[^/#\x00-\x1f]{1,100}$"), AfterValidator(readable)]
Relation = Literal["add-or-remove-one", "replace-one"]
Unit = Annotated[str, AfterValidator(_unit)]
