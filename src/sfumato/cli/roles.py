"""`sfumato roles`."""

from __future__ import annotations

import click

from sfumato.cli.output import emit, json_option, table


@click.command("roles")
@json_option
def command(as_json: bool) -> None:
    """Show what each role may do, and which role you have.

    The table is fixed. Who is what stands under [roles] in sfumato.toml; without that section, whoever can
    open the project is its owner.

    \b
    Examples:
      sfumato roles
      sfumato roles --json
    """
    from sfumato.core.project import Project
    from sfumato.core.roles import RIGHTS, ROLES, may

    project = Project.find()
    role = project.actor.role if project is not None else None
    if as_json:
        emit(
            {
                "roles": {name: [right for right in RIGHTS if may(name, right)] for name in ROLES},
                "declared": project is not None and project.policy.roles is not None,
                "you": role,
            }
        )
        return
    rows = [
        (right, *("yes" if may(name, right) else "-" for name in ROLES), RIGHTS[right][1]) for right in RIGHTS
    ]
    table(("right", *ROLES, "to"), rows)
    click.echo()
    if project is None:
        click.echo("There is no project here, so nobody has a role.")
    elif project.policy.roles is None:
        click.echo("This project declares no [roles]: whoever can open it is its owner.")
    else:
        click.echo(f"Your role here: {role or 'none; [roles] in sfumato.toml does not name you'}.")
