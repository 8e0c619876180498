"""`sfumato data retain`."""

from __future__ import annotations

import click

from sfumato.cli.output import emit, json_option, note, project_here, table


@click.command("retain")
@click.option("--dry-run", is_flag=True, help="Only show what is due; write nothing.")
@json_option
def retain_command(dry_run: bool, as_json: bool) -> None:
    """End the versions that were kept as long as [retention] allows, and remove their data.

    Data is as old as it was when it came in, whatever was copied, cut or merged from it since, and the
    shortest rule counts. The ledger says first that a version ends; data that another version still needs
    stays. The history stays too: what a version was called and made from, counts, hashes and pseudonyms. It
    cannot be undone. If it is stopped, do it again: it goes on. Needs no passphrase.

    \b
    Examples:
      sfumato data retain --dry-run
      sfumato data retain
      sfumato data retain --json
    """
    from sfumato.core.project import FOLDER
    from sfumato.data.ending import LOG, end_due
    from sfumato.data.opening import open_data

    project = project_here("curate")
    catalogue, store = open_data(project, record=not dry_run)
    ended = end_due(catalogue, store, project.gate(), project.root / FOLDER / LOG, dry_run=dry_run)
    if as_json:
        due = [one.to_data() for one in ended.due]
        emit({"dry_run": dry_run, "due": due, "removed": ended.removed})
        return
    if not ended.due:
        click.echo("No version's time is over.")
        rule = project.policy.retention
        if rule.days is None and not rule.datasets:
            note("The policy sets no days, so everything may stay: [retention] days = ... in sfumato.toml.")
        return
    rows = [
        (
            f"{one.held.dataset}@{one.held.version}",
            one.held.since.date().isoformat(),
            str(one.days),
            one.end.date().isoformat(),
        )
        for one in ended.due
    ]
    table(("version", "came in (UTC)", "days", "time over since"), rows)
    count = f"{len(rows)} version{'s' * (len(rows) > 1)}"
    if dry_run:
        click.echo(f"The time of {count} is over. Nothing was written: end them with `sfumato data retain`.")
        return
    click.echo(f"Ended {count}; {ended.removed} stored items removed.")
    note("Backups and copies that had left are not touched.")
