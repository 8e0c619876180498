"""`sfumato data view`: the people of some blocks as a version of their own."""

from __future__ import annotations

import click

from sfumato.cli.access import access_from, passphrase_option
from sfumato.cli.output import emit, json_option, project_here


@click.command("view")
@click.argument("version")
@click.option("--blocks", required=True, metavar="A,B", help="Which blocks of the population it holds.")
@click.option("--as", "dataset", required=True, metavar="NEWNAME", help="What the view is called.")
@passphrase_option
@json_option
def view_command(version: str, blocks: str, dataset: str, passphrase_fd: int | None, as_json: bool) -> None:
    """Make a version that holds the people of some blocks and nobody else.

    A release from it charges the budgets of these blocks only; `sfumato ledger show` lists them.

    \b
    Example:
      sfumato data view clinic --blocks 2026-Q3,2026-Q4 --as clinic-late
    """
    from sfumato.data.blocks import restrict
    from sfumato.data.opening import open_data

    project = project_here()
    project.actor.require("curate")
    catalogue, _ = open_data(project, access_from(passphrase_fd))
    named = tuple(word.strip() for word in blocks.split(","))
    made = restrict(catalogue, project.ledger, catalogue.usable(version), named, dataset)
    people = len({item.subject for item in made.items})
    if as_json:
        facts = {"dataset": made.dataset, "version": made.label, "hash": made.hash, "subjects": people}
        emit(facts | {"populations": list(made.facts.populations), "blocks": sorted(set(named))})
        return
    click.echo(f"Made {made.spec}: {people} subjects of {', '.join(sorted(set(named)))}, {made.hash[:16]}.")
