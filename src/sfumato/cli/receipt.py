"""`sfumato receipt verify`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from sfumato.cli.output import emit, json_option, project_here

#: What a run leaves beside its outputs: receipt.json in a folder, safe.jpg.receipt.json beside a file.
OWN_FILES = ("receipt.json", "report.html")


@click.group("receipt")
def command() -> None:
    """Verify the receipt that came with a release.

    \b
    Examples:
      sfumato receipt verify safe/receipt.json safe/
      sfumato receipt verify safe/receipt.json --ledger
    """


@command.command("verify")
@click.argument("receipt", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--ledger", "against_ledger", is_flag=True, help="Also check it against this project's ledger.")
@json_option
def verify_command(receipt: Path, files: tuple[Path, ...], against_ledger: bool, as_json: bool) -> None:
    """Check a receipt against itself, against the released FILES, and against the ledger.

    Works without a project too. Exit code 5 when something does not match.
    """
    from sfumato.core.receipt import Receipt

    read = Receipt.read(receipt)
    foreign: tuple[Path, ...] = ()
    if files:
        foreign = read.verify_files(_released(files))
    if against_ledger:
        read.verify_ledger(project_here().book())
    if as_json:
        emit(
            {
                "verified": True,
                "guarantee": read.guarantee,
                "statement": read.body["guarantee"].get("statement", ""),
                "outputs": len(read.outputs),
                "files_checked": bool(files),
                "files_not_named": len(foreign),
                "recorded": read.recorded,
                "ledger_checked": against_ledger,
            }
        )
        return
    click.echo(f"The receipt verifies: {len(read.outputs)} outputs, guarantee: {read.guarantee}.")
    click.echo(read.body["guarantee"].get("statement", ""))
    if not files:
        click.echo("No files were checked; name the released files or their folder to check them too.")
    for path in foreign:
        click.echo(f"Not named by this receipt: {path}", err=True)
    if not read.recorded:
        click.echo("It was made outside a project: no ledger holds it.")
    elif not against_ledger:
        click.echo("Add --ledger, inside the project, to check that its ledger holds it.")


def _released(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (
                file
                for file in sorted(path.rglob("*"))
                if file.is_file() and not file.name.endswith(OWN_FILES) and not file.name.startswith(".")
            )
        else:
            yield path
