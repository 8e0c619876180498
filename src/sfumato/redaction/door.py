"""Which gate a redaction goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import Gate
from sfumato.core.project import Project


@contextlib.contextmanager
def opened(gate: Gate | None, *files: Path) -> Iterator[tuple[Gate, Path]]:
    """Yield a gate and the folder that its policy's relative paths start from.

    Args:
        gate: the one to use; None: that of the project that rules, see `ruling`, closed again at the end, and
            outside any project one that records nothing.
        files: what is read and written.

    Raises:
        InvalidRequest: the files lie in different projects.
    """
    if gate is not None:
        yield gate, Path.cwd()
        return
    project = ruling(*files)
    if project is None:
        yield Gate(), Path.cwd()
        return
    door = project.gate()
    try:
        yield door, project.root
    finally:
        project.close()


def ruling(*files: Path) -> Project | None:
    """Return the project that the files lie in, else that of the working folder; None without one.

    Where one works is chance, where data lies is not: a project's data comes under its policy and into its
    ledger from wherever the command is given.

    Raises:
        InvalidRequest: the files lie in different projects, whose policies cannot both be followed.
    """
    found: dict[Path, Project] = {}
    for file in files:
        project = Project.find(file)  # from the file itself: it may be a folder, and need not exist
        if project is not None:
            found[project.root] = project
    if len(found) > 1:
        roots = " and ".join(str(root) for root in found)
        raise InvalidRequest(
            f"the input and the output lie in different projects, {roots}: two policies rule and two ledgers "
            "would have to record it. Choose an output in the input's project, or outside any."
        )
    return next(iter(found.values())) if found else Project.find()
