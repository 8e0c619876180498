"""The privacy unit: which person a row or a picture is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.core.errors import InvalidRequest

WAYS = (
    "a column (table) or a field such as patient_id (COCO); for pictures also "
    '"folder" (the first folder of the path), "file" (every picture its own), or "name:REGEX" (the first '
    "group of a pattern that the file's name begins with)"
)


@dataclass(frozen=True)
class UnitRule:
    """Says whom a picture is about.

    >>> UnitRule("name:(p[0-9]+)_").of("ward/p17_2.png", {})
    'p17'
    >>> UnitRule("folder").of("p17/2.png", {})
    'p17'
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise InvalidRequest(f"say who each row or picture is about, with --unit: {WAYS}")
        if self.text.startswith("name:"):
            try:
                groups = re.compile(self.text[5:]).groups
            except re.error as error:
                raise InvalidRequest(f"the unit {self.text!r} is no pattern: {error}") from error
            if groups < 1:
                raise InvalidRequest(f'the unit {self.text!r} has no group: write "name:([^_]+)_"')

    @property
    def is_rule(self) -> bool:
        """Whether it reads the path, not a field."""
        return self.text in ("folder", "file") or self.text.startswith("name:")

    def of(self, path: str, fields: Mapping[str, Any]) -> str | None:
        """Return what identifies the person of one picture; None where nothing does.

        Args:
            path: inside the dataset, with forward slashes.
            fields: the picture's own metadata fields.
        """
        if self.text == "file":
            return path
        if self.text == "folder":
            return path.split("/")[0] if "/" in path else None
        if self.text.startswith("name:"):
            match = re.match(self.text[5:], path.rsplit("/", 1)[-1])
            return (match[1] or None) if match else None
        value = fields.get(self.text)
        return None if value is None or isinstance(value, (dict, list)) or value != value else _spelled(value)


def _spelled(value: Any) -> str | None:
    return str(value).strip() or None


def refuse_without(missing: int, of: int, first: list[str], unit: str, what: str) -> None:
    """Refuse rows or pictures that are about nobody: nothing could bound what they give away.

    Raises:
        InvalidRequest: some are.
    """
    if missing:
        shown = ", ".join(first[:5]) + (", ..." if missing > 5 else "")
        raise InvalidRequest(
            f"{missing} of {of} {what} have no privacy unit ({unit}): {shown}. Nothing was added. Complete "
            f"or remove them, or choose another unit: {WAYS}."
        )
