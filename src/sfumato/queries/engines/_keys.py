"""Public keys: which cell a row is in, as one whole number; rows with any other value are in none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.queries.engines._expressions import Typed, constant
from sfumato.queries.engines._sql import functions, long
from sfumato.queries.model import Key, Value

#: Cells have numbers below this.
MOST_CELLS = 1 << 31


def position(of: Typed, key: Key, *, loose: bool = False) -> tuple[Any | None, Any]:
    """Return whether a row has one of a key's public values, and which: 0, 1, ...

    Values that follow one another are subtracted; others are found by halving, so that a row is compared with
    about log2 of them and no table of values has to be brought to the engine.

    Args:
        loose: None is enough of an answer to "whether" where "which" is null for all other values, and the
            engine is DuckDB, which finds text by its enumerations.
    """
    import ibis

    values = [_fitting(value, of, key) for value in key.values or ()]
    if not values:
        raise InvalidRequest(f"the key {key.name!r} has no public values")
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise InvalidRequest(f"the key {key.name!r} names the value {twice!r} twice")
    if of.kind == "integer" and _consecutive(values):
        first = constant(values[0]).value
        inside = (of.value >= first) & (of.value <= constant(values[-1]).value)
        return inside, of.value if values[0] == 0 else of.value - first
    if of.kind == "boolean":
        places = {value: long(values.index(value)) for value in values}
        nowhere = ibis.null("int64")
        place = ibis.cases((of.value, places.get(True, nowhere)), (~of.value, places.get(False, nowhere)))
    elif of.kind == "text" and loose:
        place = functions()["place"](of.value, ibis.literal(values, "array<string>"))
    else:
        order = sorted(range(len(values)), key=lambda place: _order(values[place]))
        place = _halved(of.value, [(place, constant(values[place]).value) for place in order])
    return None if loose else place.notnull(), place


def _halved(value: Any, places: Sequence[tuple[int, Any]]) -> Any:
    import ibis

    if len(places) <= 4:
        return ibis.cases(
            *((value == known, long(place)) for place, known in places),
            else_=ibis.null("int64"),
        )
    middle = len(places) // 2
    return ibis.ifelse(
        value < places[middle][1], _halved(value, places[:middle]), _halved(value, places[middle:])
    )


def _order(value: Any) -> Any:
    """Return what a value is sorted by: text by its UTF-8, as the engines do."""
    return value.encode() if isinstance(value, str) else value


def _consecutive(values: Sequence[Any]) -> bool:
    return all(value == values[0] + place for place, value in enumerate(values))


def _fitting(value: Value, of: Typed, key: Key) -> Any:
    """Return a public value as the kind that the key's expression has."""
    match of.kind:
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" if (
            isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        ):
            return int(value)
        case "number" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) + 0.0
        case "text" if isinstance(value, str):
            return value
        case "date" if isinstance(value, datetime) and value == datetime(value.year, value.month, value.day):
            return value.date()
        case "date" if isinstance(value, date) and not isinstance(value, datetime):
            return value
        case "date" | "timestamp" if isinstance(value, str):
            return _parsed(value, of, key)
        case "timestamp" if isinstance(value, datetime):
            return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        case "timestamp" if isinstance(value, date):
            return datetime(value.year, value.month, value.day)
    raise InvalidRequest(f"the key {key.name!r} is a {of.kind} and can never be {value!r}: change its values")


def _parsed(text: str, of: Typed, key: Key) -> Any:
    try:
        return _fitting(datetime.fromisoformat(text), of, key)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no {of.kind} for the key {key.name!r}: write it as 2026-01-31"
        ) from None
