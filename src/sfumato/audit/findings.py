"""What direct tests find, and how many of them may be believed at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

#: The chance that correct code fails any direct test at all.
FALSE_ALARM = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one direct test.

    Args:
        test: its name.
        said: what was seen beside what was promised, in one line.
        p: the chance of something at least as extreme in correct code; 0.0 where correct code cannot do it.
        broken: whether this is too improbable, all tests of the audit taken together.
    """

    test: str
    said: str
    p: float
    broken: bool = False

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"test": self.test, "said": self.said, "p": self.p, "broken": self.broken}


def judged(findings: Iterable[Finding], false_alarm: float = FALSE_ALARM) -> tuple[Finding, ...]:
    """Return findings marked by Holm's method: correct code has any marked with this chance at most.

    >>> [one.broken for one in judged([Finding("a", "", 1e-9), Finding("b", "", 0.3)])]
    [True, False]

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    found = list(findings)
    order = sorted(range(len(found)), key=lambda index: found[index].p)
    for rank, index in enumerate(order):
        if found[index].p > false_alarm / (len(found) - rank):
            break
        found[index] = replace(found[index], broken=True)
    return tuple(found)
