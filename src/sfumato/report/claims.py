"""What a report says, as plain data in which every record names its source.

A record is a dict with the key `from`: the ledger rows, versions, consent rows, receipts or policy keys that
it follows from. Whatever lies inside a record, and has no `from` of its own, follows from the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.core.files import canonical

FORMAT = "sfumato-report/1"
SOURCE = "from"


@dataclass(frozen=True, slots=True)
class Claim:
    """One value of a report.

    Args:
        path: where it stands, such as "budgets.0.spent_epsilon".
        value: text, number, truth value or nothing.
        source: what it follows from.
    """

    path: str
    value: str | int | float | bool | None
    source: Mapping[str, Any]


def claims(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Iterate over every value of a report with its source.

    >>> [(c.path, c.value, c.source) for c in claims({"releases": {"count": 3, "from": {"rows": [7]}}})]
    [('releases.count', 3, {'rows': [7]})]
    """
    yield from _walk(data, "", {})


def _walk(value: Any, path: str, source: Mapping[str, Any]) -> Iterator[Claim]:
    if isinstance(value, Mapping):
        source = value.get(SOURCE, source)
        for key, item in value.items():
            if key != SOURCE:
                yield from _walk(item, f"{path}.{key}" if path else str(key), source)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}", source)
    else:
        yield Claim(path, value, source)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the first claim in which two reports differ, with its source; nothing where there is none."""
    if canonical(old) == canonical(new):
        return ""
    theirs = {claim.path: claim for claim in claims(old)}
    ours = {claim.path: claim for claim in claims(new)}
    for path, claim in ours.items():
        other = theirs.get(path)
        if other is None:
            return f"{path} is missing from it; it must be {_shown(claim.value)} ({spoken(claim.source)})"
        # 1 == True in Python, and not in a report
        if (type(other.value), other.value) != (type(claim.value), claim.value):
            return (
                f"{path} says {_shown(other.value)}, and {_shown(claim.value)} follows from "
                f"{spoken(claim.source)}"
            )
        if other.source != claim.source:
            return f"{path} names {spoken(other.source)} as its source, and it is {spoken(claim.source)}"
    for path, claim in theirs.items():
        if path not in ours:
            return f"{path} says {_shown(claim.value)}, and nothing here says so ({spoken(claim.source)})"
    return "an empty list or table in it differs"


def spoken(source: Mapping[str, Any]) -> str:
    """Return a source in words.

    >>> spoken({"rows": [3, 4], "policy": "purposes"})
    'rows 3, 4 of the ledger, purposes in the policy'
    """
    parts = []
    for key, value in source.items():
        listed = ", ".join(str(one)[:16] for one in (value if isinstance(value, list) else [value]))
        many = isinstance(value, list) and len(value) != 1
        if key == "rows":
            parts.append(f"row{'s' * many} {listed} of the ledger")
        elif key == "policy":
            parts.append(f"{value} in the policy")
        elif key == "consent":
            parts.append(f"row{'s' * many} {listed} of the consent register")
        else:
            parts.append(f"{key} {listed}")
    return ", ".join(parts) or "the project"


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return data as it reads back from JSON, so that a page is drawn from the same whoever draws it."""
    result: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return result


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
