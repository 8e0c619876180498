"""`sfumato check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.output import emit, json_option, note
from sfumato.cli.redact import model_files, words

if TYPE_CHECKING:
    from sfumato.redaction.check import Report

#: So many finds are printed; --json has all.
NAMED = 20


@click.command("check", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outputs", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--original", metavar="SRC", type=click.Path(path_type=Path),
    help="What OUT was made from, a file or a folder with the same names: coverage is reported too.",
)  # fmt: skip
@click.option(
    "--hide", "classes", metavar="CLASS", multiple=True, callback=words,
    help="What to look for.  [default: what the receipt beside OUT says was hidden, else face]",
)  # fmt: skip
@click.option(
    "--model", "models", metavar="NAME=FILE", multiple=True, callback=model_files,
    help="Weights for a detector, in place of those fetched by `sfumato models pull`.",
)  # fmt: skip
@click.option("--thorough", is_flag=True, help="All detectors, in all ways, at every frame: much slower.")
@click.option(
    "-o", "--output", "sheet", metavar="SHEET.png", type=click.Path(path_type=Path),
    help="Write a contact sheet of what was found, outlined. It shows what was to be hidden: delete it.",
)  # fmt: skip
@click.option(
    "--threads", metavar="N", type=click.IntRange(0), default=0,
    help="Inference threads.  [default: one per core]",
)  # fmt: skip
@json_option
def command(outputs: Path, sheet: Path | None, as_json: bool, **options: Any) -> None:
    """Look for what redacted pictures and videos still show.

    OUT is an output of `sfumato redact`, or a folder of them; no original is needed. Every picture and frame
    is looked at with other detectors than those that hid, mirrored, turned and at other scales; so are
    pictures embedded in the files, and metadata is compared with the list of what may be there. Nothing is
    changed. Exit code 0: nothing was found; 1: something was, or a file could not be looked at.

    \b
    Examples:
      sfumato check safe.jpg
      sfumato check safe/ -o found.png
      sfumato check safe.mp4 --original walk.mp4 --json
      sfumato check safe/ --thorough --model yunet=face_detection_yunet_2023mar.onnx
    """
    from sfumato.cli.progress import watching
    from sfumato.redaction.check import check
    from sfumato.redaction.check.run import MAX_PIXELS

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise click.BadParameter(f"the contact sheet is a PNG, not {sheet.name!r}", param_hint="-o")
    with watching() as watch:
        report = check(outputs, **options, progress=lambda done, total: watch.frames(2 * done, None))
    code = 0 if report.ok else 1
    if sheet is not None:
        from sfumato.redaction.check.sheet import write_sheet

        if not write_sheet(sheet, outputs, report.finds, MAX_PIXELS):
            note("no contact sheet was written: nothing found has a place in a picture")
    if as_json:
        emit({"exit_code": code, **report.to_data()})
    else:
        for line in _lines(report):
            click.echo(line)
    for remark in report.notes:
        note(remark)
    click.get_current_context().exit(code)


def _lines(report: Report) -> Iterator[str]:
    """Yield the summary for people."""
    looked = f"{report.pictures} pictures, {report.videos} videos with {report.frames} frames"
    yield f"Checked: {looked}, for {', '.join(report.classes)}, by {', '.join(report.detectors)}."
    for find in report.finds[:NAMED]:
        yield f"  {find.line()}"
    if len(report.finds) > NAMED:
        yield f"  and {len(report.finds) - NAMED} more; --json lists all"
    for name, reason in report.failures:
        yield f"  not checked: {name}: {reason}"
    if report.coverage:
        exposed = sum(one.exposed > 0 for one in report.coverage)
        least = min(one.least for one in report.coverage)
        yield f"Coverage: {len(report.coverage)} tracks, {exposed} exposed, the least covered {least:.0%}."
    if report.ok:
        yield "Found: nothing. Tested, not proven: another detector, or a person, may find more."
    else:
        yield f"Found: {len(report.finds)} in {len(report.files)} files. Do not hand these on."
