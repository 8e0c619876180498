"""`sfumato receipt verify`."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.cli.output import emit, json_option, project_here

#: So many files that the receipt does not name are printed.
NAMED = 8


@click.group("receipt")
def command() -> None:
    """Verify the receipt that came with a release.

    \b
    Examples:
      sfumato receipt verify safe/receipt.json safe/
      sfumato receipt verify safe.jpg.receipt.json safe.jpg
      sfumato receipt verify safe/receipt.json --ledger
    """


@command.command("verify")
@click.argument("receipt", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--ledger", "against_ledger", is_flag=True, help="Also check it against this project's ledger.")
@click.option("--allow-others", is_flag=True, help="Let FILES hold files that the receipt does not name.")
@json_option
def verify_command(
    receipt: Path, files: tuple[Path, ...], against_ledger: bool, allow_others: bool, as_json: bool
) -> None:
    """Check a receipt against itself, against the released FILES, and against the ledger.

    FILES are files, or folders that are walked to their depths. A file that the receipt does not name does
    not verify, be it hidden, linked, or an output of another run; only what a run lays beside its outputs is
    left aside. Works without a project too. Exit code 5 when something does not match.

    \b
    Examples:
      sfumato receipt verify safe/receipt.json safe/
      sfumato receipt verify safe/receipt.json --ledger
    """
    from sfumato.core.errors import ReceiptInvalid
    from sfumato.core.receipt import Receipt
    from sfumato.redaction.tree import shown

    read = Receipt.read(receipt)
    foreign: tuple[Path, ...] = ()
    if files:
        regular, odd = _released(receipt, files)
        foreign = (*odd, *read.verify_files(regular))
    if foreign and not allow_others:
        names = ", ".join(shown(path) for path in foreign[:NAMED])
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise ReceiptInvalid(
            f"{len(foreign)} files are not named by this receipt, and nothing says that they are safe: "
            f"{names}{more}. Take them away, or pass --allow-others"
        )
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
        click.echo(f"Not named by this receipt: {shown(path)}", err=True)
    if not read.recorded:
        click.echo("It was made outside a project: no ledger holds it.")
    elif not against_ledger:
        click.echo("Add --ledger, inside the project, to check that its ledger holds it.")


def _released(receipt: Path, paths: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
    """Return the files to check, and what is no regular file and so cannot be checked."""
    from sfumato.redaction.places import Places, strangers

    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        own = set(Places.around(receipt.resolve()))
        if receipt.name == Places.inside(path).receipt.name:
            own |= {file.resolve() for file in Places.inside(path)}
        found += [file for file in strangers(path) if file.parent.resolve() / file.name not in own]
    return [path for path in found if path.is_file()], [path for path in found if not path.is_file()]
