"""`sfumato init`."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.cli.output import emit, json_option


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--name", default="", help="Name of the project; default: the folder's name.")
@click.option(
    "--new-ledger",
    is_flag=True,
    help="Start a ledger of its own although this folder had one before, or lies inside a project.",
)
@json_option
def command(folder: Path, name: str, new_ledger: bool, as_json: bool) -> None:
    """Start a project: a policy file and a ledger in this folder.

    The policy, sfumato.toml, says what must be hidden, what the data may be used for, and how much privacy
    loss its people may ever suffer. The ledger, under .sfumato/, records every release. Commands find the
    project from any folder below.

    \b
    Examples:
      sfumato init
      sfumato init cameras --name city-cameras
    """
    from sfumato.core.project import Project

    project = Project.init(folder, name=name, forget=new_ledger)
    policy = project.root / "sfumato.toml"
    if as_json:
        emit({"project": project.policy.project.name, "policy": str(policy), "ledger": project.ledger.id})
        return
    click.echo(f"Started project {project.policy.project.name!r}.")
    click.echo(f"Its policy is {policy}: open it and say what must be hidden.")
    click.echo("Every release made in this folder or below is now recorded in its ledger.")
