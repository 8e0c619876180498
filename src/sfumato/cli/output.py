"""What every command prints the same way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import Project

json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output."
)


def emit(data: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def note(message: str) -> None:
    """Print a remark to standard error, so that it never mixes with results."""
    click.echo(message, err=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; plain text, so that it reads the same in a pipe."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def project_here(right: str = "") -> Project:
    """Return the project of the working folder.

    Args:
        right: that the command needs, of `sfumato roles`; empty: it is checked elsewhere.

    Raises:
        InvalidRequest: there is none.
        PolicyRefused: whoever runs this lacks the right.
    """
    project = Project.find()
    if project is None:
        raise InvalidRequest(
            "there is no project here: no sfumato.toml in this folder or above it. Run `sfumato init`."
        )
    if right:
        project.actor.require(right)
    return project
