"""Which gate a redaction goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sfumato.core.gate import Gate
from sfumato.core.project import Project


@contextlib.contextmanager
def opened(gate: Gate | None) -> Iterator[tuple[Gate, Path]]:
    """Yield a gate and the folder that its policy's relative paths start from.

    Args:
        gate: the one to use; None: that of the project that the working folder lies in, closed again at the
            end, and outside any project one that records nothing.
    """
    if gate is not None:
        yield gate, Path.cwd()
        return
    project = Project.find()
    if project is None:
        yield Gate(), Path.cwd()
        return
    door = project.gate()
    try:
        yield door, project.root
    finally:
        project.close()
