"""`sfumato seal show|destroy`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.output import emit, json_option, note, project_here, table
from sfumato.cli.unseal import sealed_option
from sfumato.core.errors import InvalidRequest

output_argument = click.argument(
    "output", metavar="OUT", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.group("seal")
def command() -> None:
    """Show what originals are sealed, or destroy them for ever.

    They are sealed by `sfumato redact --seal` and put back by `sfumato unseal`.

    \b
    Examples:
      sfumato seal show safe.mp4
      sfumato seal destroy safe.mp4 --track 2
    """


@command.command("show")
@output_argument
@sealed_option
@passphrase_option
@json_option
def show(output: Path, folder: Path | None, passphrase_fd: int | None, as_json: bool) -> None:
    """List the tracks whose originals are sealed: class, frames, and place in the first; no pixel is opened.

    \b
    Example:
      sfumato seal show safe.mp4
    """
    from sfumato.redaction.sealed.restore import the_one
    from sfumato.redaction.sealed.room import Room, Wish

    project = project_here("restore")
    sealed = the_one(Room.of(project, Wish(access_from(passphrase_fd), folder=folder)), output)
    sealed.check()
    tracks = [
        {name: track[name] for name in ("track", "label", "first", "last", "box")}
        for track in sealed.tracks.values()
    ]
    if as_json:
        emit(
            {"kind": sealed.table["about"]["kind"], "tracks": tracks, "people": len(sealed.table["subjects"])}
        )
        return
    rows = [
        (str(one["track"]), one["label"], f"{one['first']}-{one['last']}", ",".join(map(str, one["box"])))
        for one in tracks
    ]
    table(("TRACK", "CLASS", "FRAMES", "BOX IN THE FIRST"), rows)


@command.command("destroy")
@output_argument
@click.option(
    "--track", "tracks", metavar="N", type=click.IntRange(0), multiple=True,
    help="Only this track, of `sfumato seal show`; this needs the vault's key. Repeatable.  [default: all]",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask: destroy.")
@sealed_option
@passphrase_option
@json_option
def destroy(
    output: Path,
    tracks: tuple[int, ...],
    yes: bool,
    folder: Path | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Destroy sealed originals for ever: no copy of the sealed file opens again. It cannot be undone.

    \b
    Examples:
      sfumato seal destroy safe.mp4
      sfumato seal destroy safe.mp4 --track 2 --track 5 --yes
    """
    from sfumato.redaction.sealed.restore import end, plan_to_end
    from sfumato.redaction.sealed.room import Room, Wish

    project = project_here("erase")
    room = Room.of(project, Wish(access_from(passphrase_fd), folder=folder), unlock=bool(tracks))
    what = f"track {', '.join(map(str, tracks))}" if tracks else "all tracks"
    room.find(output)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("this cannot be undone: confirm it with --yes, or run it on a terminal")
        click.confirm(f"Destroy the originals of {what} for ever?", abort=True, err=True)
    try:
        receipt = end(room, project.gate(), output, tracks)
    finally:
        project.close()
    row = receipt.rows[-1].seq
    if as_json:
        emit({"tracks": list(tracks), "row": row, **receipt.body["facts"]})
        return
    click.echo(f"Destroyed the originals of {what}; recorded in row {row} of the ledger.")
    note(f"Not covered: {'; '.join(plan_to_end('', tracks).limits)}.")
