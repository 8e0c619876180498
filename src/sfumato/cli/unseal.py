"""`sfumato unseal`."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.output import emit, json_option, note, project_here

sealed_option = click.option(
    "--seal-to",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where the sealed files were kept, if not in the project.",
)


@click.command("unseal")
@click.argument("output", metavar="OUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to", "target", metavar="RESTORED", required=True, type=click.Path(path_type=Path),
    help="File to write; it must not exist. Only you can read it.",
)  # fmt: skip
@click.option(
    "--purpose", metavar="P", required=True, help='A purpose of the policy with the action "restore".'
)
@click.option(
    "--reason", metavar="TEXT", required=True,
    help="Why, such as the number of a court order; it stays in the ledger, so name no person.",
)  # fmt: skip
@click.option(
    "--track", "tracks", metavar="N", type=click.IntRange(0), multiple=True,
    help="Put back only this track, of `sfumato seal show`. Repeatable.  [default: all]",
)  # fmt: skip
@click.option(
    "--exact", is_flag=True, help="Write a video without any loss (.mkv), a picture to .png or .tif."
)
@sealed_option
@passphrase_option
@json_option
def command(
    output: Path,
    target: Path,
    purpose: str,
    reason: str,
    tracks: tuple[int, ...],
    exact: bool,
    folder: Path | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Put sealed originals back into a copy of a redacted file.

    OUT is an output of `sfumato redact --seal`, byte for byte as it was written. The ledger records who
    restores what, for which purpose and why, before a pixel is opened. What two tracks hide together comes
    back only where both are restored.

    \b
    Examples:
      sfumato unseal safe.mp4 --to open.mp4 --purpose court --reason "order 12/3"
      sfumato unseal safe.mp4 --to open.mkv --exact --track 2 --purpose court --reason "order 12/3"
    """
    from sfumato.cli.progress import watching
    from sfumato.redaction.sealed.restore import Order, check, restore
    from sfumato.redaction.sealed.room import Room, Wish

    order = Order(reason=reason, purpose=purpose, tracks=tracks, exact=exact)
    project = project_here()  # who may not is refused by the gate, on the record
    gate = project.gate()
    try:
        check(gate, output, order)
        room = Room.of(project, Wish(access_from(passphrase_fd), folder=folder))
        with watching() as watch:
            receipt = restore(room, gate, output, target, order, watch.frames)
    finally:
        project.close()
    path = target.with_name(f"{target.name}.receipt.json")
    receipt.write(path)
    facts, row = receipt.body["facts"], receipt.rows[0].seq
    if as_json:
        emit({"restored": str(target), "receipt": str(path), "row": row, **facts})
        return
    click.echo(
        f"Restored {facts['tracks']} tracks in {facts['frames']} frames; row {row} of the ledger says why."
    )
    note(f"{target.name} shows what was hidden, and only you can read it: delete it when you are done.")
