"""`sfumato models`: list, fetch and verify the detection models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.output import emit, json_option, table

if TYPE_CHECKING:
    from pathlib import Path

    from sfumato.vision.models import Entry


@click.group("models", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, fetch and verify the detection models.

    Faces are found out of the box (centerface). People, vehicles and the other COCO classes need YOLO26 of
    Ultralytics, which is AGPL-3.0: fetch it here, or give an exported file with `redact --model yolo26=FILE`.

    Files are kept in the user's cache folder, or in the folder that SFUMATO_MODELS names. A file is used only
    if its sha256 is the published one.

    \b
    Examples:
      sfumato models list
      sfumato models pull yolo26n
      sfumato models pull yolo26n --url https://mirror.example/yolo26n.onnx
      sfumato models path centerface
      sfumato models verify
    """


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models: which are here, what they find, their licences.

    \b
    Example:
      sfumato models list --json
    """
    from sfumato.vision.models import REGISTRY

    rows = [_row(one) for one in REGISTRY]
    if as_json:
        emit({"models": rows})
        return
    cells = []
    for row in rows:
        size = f"{row['size'] / 1e6:.1f}"
        cells.append([row["name"], row["state"], row["detector"], size, row["licence"], _short(row["finds"])])
    table(("model", "state", "detector", "MB", "licence", "finds"), cells)


@command.command()
@click.argument("name")
@click.option("--url", help="Another address to fetch from, such as a mirror; the sha256 must still match.")
@click.option("--force", is_flag=True, help="Fetch again even if the file is here.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds without a byte before giving up.")
def pull(name: str, url: str | None, force: bool, timeout: float) -> None:
    """Fetch a model into the cache; a broken download goes on where it stopped.

    The file appears only after its sha256 was found equal to the published one. The YOLO26 weights are
    AGPL-3.0: read what that asks of you before you offer a service with them.

    \b
    Examples:
      sfumato models pull yolo26n
      sfumato models pull yunet-2023mar
    """
    from sfumato.vision.fetch import pull as fetch

    if sys.stderr.isatty():
        path = _pull_with_bar(name, url, force, timeout)
    else:
        path = fetch(name, url=url, force=force, timeout=timeout)
    click.echo(path)


@command.command()
@click.argument("name")
@json_option
def path(name: str, as_json: bool) -> None:
    """Print where a model's verified file lies.

    \b
    Example:
      sfumato models path centerface
    """
    from sfumato.vision.models import entry
    from sfumato.vision.models import path as find

    found = find(name)
    if as_json:
        emit({"name": name, "path": str(found), "sha256": entry(name).sha256})
    else:
        click.echo(found)


@command.command()
@click.argument("names", nargs=-1)
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the files that are here (or those named) against the published sha256.

    Ends with 1 if one is damaged, or if one that was named is missing.

    \b
    Examples:
      sfumato models verify
      sfumato models verify yolo26n --json
    """
    from sfumato.core.errors import DownloadFailed
    from sfumato.vision.models import REGISTRY, entry

    rows = [_row(one) for one in (map(entry, names) if names else REGISTRY)]
    bad = [row for row in rows if row["state"] == "damaged" or (names and row["state"] == "missing")]
    if as_json:
        emit({"ok": not bad, "models": rows})
    else:
        for row in rows:
            click.echo(f"{row['name']}: {row['state']}")
    if bad:
        first = bad[0]
        remedy = (
            f"Run: sfumato models pull {first['name']}{' --force' if first['state'] == 'damaged' else ''}"
        )
        raise DownloadFailed(f"{len(bad)} of {len(rows)} models did not verify. {remedy}")


def _row(one: Entry) -> dict[str, Any]:
    """Return one model as plain data."""
    from sfumato.vision.models import state

    return {
        "name": one.name,
        "detector": one.detector,
        "state": state(one),
        "size": one.size,
        "sha256": one.sha256,
        "licence": one.licence,
        "finds": list(one.finds),
        "url": one.url or None,
        "page": one.page,
    }


def _short(finds: list[str]) -> str:
    """Return class names on one line."""
    return ", ".join(finds[:3]) + (f" and {len(finds) - 3} more" if len(finds) > 3 else "")


def _pull_with_bar(name: str, url: str | None, force: bool, timeout: float) -> Path:
    """Fetch with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from sfumato.vision.fetch import pull as fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        return fetch(
            name,
            url=url,
            force=force,
            timeout=timeout,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
