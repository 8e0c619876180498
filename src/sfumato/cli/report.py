"""`sfumato report`: one page that answers for what was done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sfumato.cli.access import access_from, passphrase_option, population_from, population_option
from sfumato.cli.output import emit, json_option, note, project_here
from sfumato.core.errors import InvalidRequest
from sfumato.core.files import write_whole

if TYPE_CHECKING:
    from sfumato.core.project import Project


@click.command("report")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: report.html]"
)
@click.option("--pdf", is_flag=True, help="Also write it as PDF, beside the page.")
@click.option(
    "--subject",
    metavar="ID",
    help="Answer one person instead (GDPR Art. 15); - reads the id from standard input.",
)
@population_option
@click.option(
    "--verify",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check a report: compute every figure again.",
)
@passphrase_option
@json_option
def command(
    output: Path | None,
    pdf: bool,
    subject: str | None,
    population: str | None,
    file: Path | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Write a page that answers for what was done; verify one.

    It holds data, purposes, releases, budgets, refusals, erasures, and helps for three laws. The page is one
    file that loads nothing. Every figure on it names the row of the ledger, the version or the consent that
    it follows from; --verify computes each again and ends with exit code 5 where one differs.

    With --json, what the page says is printed, with every release, and no file is written unless -o is given.

    \b
    Examples:
      sfumato report -o report.html
      sfumato report --verify report.html
      sfumato report --pdf
      sfumato report --subject patient-17 --population patients
      sfumato report --json
    """
    project = project_here()
    project.actor.require("read")
    if file is not None:
        if pdf or output or subject is not None:
            raise InvalidRequest("--verify checks a file and writes none: leave the other options out")
        _verify(project, file, passphrase_fd, as_json)
        return
    if population is not None and subject is None:
        raise InvalidRequest("--population says whose people the --subject is one of: name a subject too")
    _write(project, output, pdf, subject, population, passphrase_fd, as_json)


def _write(
    project: Project,
    output: Path | None,
    pdf: bool,
    id: str | None,
    population: str | None,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    from sfumato.report.collect import collect
    from sfumato.report.page import render
    from sfumato.report.person import find
    from sfumato.report.sources import Sources

    person = None
    if id is not None:
        project.actor.require("consent")  # who may record what a person says may also answer them
        id = sys.stdin.readline().rstrip("\r\n") if id == "-" else id
        person = find(project, id, population_from(project.policy, population), access_from(passphrase_fd))
    sources = Sources.now(project)
    try:
        data = collect(sources, subject=person)
        everything = collect(sources, subject=person, full=None) if as_json and person is None else data
    finally:
        sources.close()
    if as_json:
        emit(everything)
        if output is None and not pdf:
            return
    target = output or Path(f"answer-{person.pseudonyms[0][:12]}.html" if person else "report.html")
    page = render(data)
    drawn = None
    if pdf:
        from sfumato.report.pdf import to_pdf

        drawn = to_pdf(page)  # before the page is written: both, or neither
    mode = 0o600 if person else 0o644
    write_whole(target, page, mode=mode)
    if drawn is not None:
        write_whole(target.with_suffix(".pdf"), drawn, mode=mode)
    if not as_json:
        click.echo(f"Wrote {target}" + (f" and {target.with_suffix('.pdf')}" if drawn is not None else ""))
    if person:
        note("This file is personal data: give it to the person, and to nobody else.")


def _verify(project: Project, file: Path, passphrase_fd: int | None, as_json: bool) -> None:
    from sfumato.report.person import store_of
    from sfumato.report.verify import check

    checked = check(project, file, store=store_of(project, access_from(passphrase_fd)))
    if as_json:
        emit(
            {
                "verified": True,
                "claims": checked.claims,
                "rows": checked.rows,
                "unchecked": list(checked.unchecked),
            }
        )
        return
    click.echo(
        f"{file} holds: {checked.claims} values, each computed again from {checked.rows} rows of the ledger "
        "and what goes with them, and the page shows what they say."
    )
    if checked.unchecked:
        note(f"Not read again, since their tables could not be opened: {', '.join(checked.unchecked)}.")
