"""`sfumato token create|list|revoke`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from sfumato.cli.output import emit, json_option, note, project_here, table


@click.group("token")
def command() -> None:
    """Make, list and revoke the tokens that servers ask with.

    \b
    Examples:
      sfumato token create dashboard --role analyst --purpose traffic --days 30
      sfumato token list
      sfumato token revoke dashboard
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--role", required=True, help="What its holder is: curator, analyst or auditor; never an owner."
)
@click.option("--purpose", "purposes", multiple=True, help="Limit it to this purpose; may be repeated.")
@click.option("--action", "actions", multiple=True, help="Limit it to this action; may be repeated.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 3660), help="When it ends.")
@json_option
def create(
    name: str, role: str, purposes: tuple[str, ...], actions: tuple[str, ...], days: int, as_json: bool
) -> None:
    """Make a token. It is shown once, here, and kept only as a hash.

    \b
    Example:
      sfumato token create dashboard --role analyst --purpose traffic --days 30
    """
    from sfumato.core.errors import UnknownName
    from sfumato.core.policy import ACTIONS

    project = project_here()
    for kind, asked, known in (
        ("purpose", purposes, tuple(project.policy.purposes)),
        ("action", actions, ACTIONS),
    ):
        for item in asked:
            if item not in known:
                raise UnknownName(kind, item, known)
    text, token = project.tokens.create(
        name,
        role,
        expires=datetime.now(UTC) + timedelta(days=days),
        purposes=purposes or None,
        actions=actions or None,
    )
    if as_json:
        emit({"token": text, **token.to_data()})
        return
    click.echo(text)
    note(f"It is not shown again. Its holder is {role} until {token.expires}.")
    if project.policy.roles is not None:
        note(f'For it to count, add "token:{name}" to roles.{role} in sfumato.toml.')


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the tokens, those that ended or were revoked too; never the tokens themselves.

    \b
    Example:
      sfumato token list
    """
    project = project_here()
    project.actor.require("read")
    tokens = project.tokens.all()
    if as_json:
        emit({"tokens": [token.to_data() for token in tokens]})
        return
    if not tokens:
        click.echo("No tokens.")
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [
        (
            token.name,
            token.role,
            ", ".join(token.purposes) if token.purposes is not None else "all",
            ", ".join(token.actions) if token.actions is not None else "all",
            "revoked"
            if token.revoked
            else "ended"
            if token.expires <= now
            else f"until {token.expires[:10]}",
        )
        for token in tokens
    ]
    table(("name", "role", "purposes", "actions", "state"), rows)


@command.command("revoke")
@click.argument("name")
@json_option
def revoke(name: str, as_json: bool) -> None:
    """Take a token back, by name or id; from the next request on it is refused.

    \b
    Example:
      sfumato token revoke dashboard
    """
    token = project_here().tokens.revoke(name)
    if as_json:
        emit(token.to_data())
        return
    click.echo(f"Revoked {token.name}.")
