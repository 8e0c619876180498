"""`sfumato consent give|withdraw|import|show`."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option, population_from, population_option
from sfumato.cli.output import emit, json_option, note, project_here, table
from sfumato.core.errors import UnknownName
from sfumato.core.project import Project

if TYPE_CHECKING:
    from sfumato.core.consent import Register

_on = click.option(
    "--on", type=click.DateTime(["%Y-%m-%d"]), help="The day (UTC), as 2030-12-31; default: today."
)
_purpose = click.option("--purpose", required=True, help="A purpose of sfumato.toml.")
_source = click.option(
    "--source", default="", help="Where it is filed, without naming anyone: a form's number."
)


@click.group("consent")
def command() -> None:
    """Record who agrees to which purpose, and who took it back.

    The register holds keyed hashes, never names, and nothing is ever printed back. A purpose asks for consent
    where its lawful_basis in sfumato.toml is "consent".

    \b
    Examples:
      sfumato consent give patient-17 --purpose research --source "form 204"
      sfumato consent withdraw patient-17 --purpose research
      sfumato consent import agreed.csv
      sfumato consent show
    """


@command.command("give")
@click.argument("subject")
@_purpose
@_on
@_source
@population_option
@passphrase_option
@json_option
def give(subject: str, purpose: str, on: datetime | None, source: str, as_json: bool, **whose: Any) -> None:
    """Record that SUBJECT agrees to a purpose.

    \b
    Example:
      sfumato consent give patient-17 --purpose research --source "form 204"
    """
    project = _project(purpose)
    register = _register(project, **whose)
    register.give(subject, purpose, on=_day(on), source=source)
    _say(project, register, subject, purpose, as_json)


@command.command("withdraw")
@click.argument("subject")
@_purpose
@_on
@_source
@population_option
@passphrase_option
@json_option
def withdraw(
    subject: str, purpose: str, on: datetime | None, source: str, as_json: bool, **whose: Any
) -> None:
    """Record that SUBJECT took consent back; from the next plan on, their rows stay out.

    \b
    Example:
      sfumato consent withdraw patient-17 --purpose research
    """
    project = _project(purpose)
    register = _register(project, **whose)
    if not any(row["purpose"] == purpose for row in register.history(subject)):
        note("There was no consent of this subject to withdraw. Is the id the one that the data has?")
    register.withdraw(subject, purpose, on=_day(on), source=source)
    _say(project, register, subject, purpose, as_json)


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--source", default="import", show_default=True, help="Where it is filed, without naming anyone."
)
@population_option
@passphrase_option
@json_option
def import_command(file: Path, source: str, as_json: bool, **whose: Any) -> None:
    """Import a CSV FILE with the columns subject, purpose, given, withdrawn.

    All of it is recorded, or nothing. What was imported before is not recorded again. Of one day's consent
    and withdrawal the withdrawal counts.

    \b
    Example:
      sfumato consent import agreed.csv --source "spring survey"
    """
    project = project_here()
    new = _register(project, **whose).load(file, source=source, purposes=project.policy.purposes)
    if as_json:
        emit({"new": new})
    else:
        click.echo(f"{new} new entries.")


@command.command("show")
@click.argument("subject", required=False)
@population_option
@passphrase_option
@json_option
def show(subject: str | None, as_json: bool, **whose: Any) -> None:
    """Show how many people agree to each purpose, or everything recorded about one SUBJECT.

    \b
    Examples:
      sfumato consent show
      sfumato consent show patient-17
    """
    project = project_here()
    project.actor.require("read")
    if subject is not None:
        history = _register(project, **whose).history(subject)
        if as_json:
            emit({"entries": history})
        elif not history:
            click.echo("Nothing is recorded about this subject.")
        else:
            table(
                ("day", "what", "purpose", "source"),
                [(row["date"], row["kind"], row["purpose"], row["source"]) for row in history],
            )
        return
    counts = project.consent.counts()
    if as_json:
        emit({"purposes": counts})
    elif not counts:
        click.echo("Nobody's consent is recorded.")
    else:
        table(
            ("purpose", "agree", "withdrew"),
            [(name, str(count["given"]), str(count["withdrawn"])) for name, count in counts.items()],
        )


def _project(purpose: str) -> Project:
    project = project_here()
    if purpose not in project.policy.purposes:
        raise UnknownName("purpose", purpose, project.policy.purposes)
    return project


def _day(on: datetime | None) -> date | None:
    return on.date() if on is not None else None


def _register(project: Project, population: str | None, passphrase_fd: int | None) -> Register:
    """Return the register, which takes ids of one population's people."""
    from sfumato.data.people import people_of

    people, scope = (
        people_of(project, access_from(passphrase_fd)),
        population_from(project.policy, population),
    )
    return project.consent.named(lambda subject: people.subject(subject, scope))


def _say(project: Project, register: Register, subject: str, purpose: str, as_json: bool) -> None:
    stands = register.given(subject, purpose)
    basis = project.policy.purposes[purpose].lawful_basis
    if basis != "consent":
        note(f"{purpose!r} rests on {basis or 'no basis'!r}, not on consent: nothing asks for this record.")
    if as_json:
        emit({"purpose": purpose, "consent": stands})
    else:
        click.echo(
            f"Recorded: this subject's consent to {purpose} {'stands' if stands else 'does not stand'}."
        )
