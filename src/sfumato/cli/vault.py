"""`sfumato vault init|status|rotate|erase`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli.access import access_from, passphrase_option, population_from, population_option
from sfumato.cli.output import emit, json_option, note, project_here
from sfumato.core.errors import InvalidRequest

if TYPE_CHECKING:
    from sfumato.data.vault import Vault

NEW_PASSPHRASE = "SFUMATO_NEW_PASSPHRASE"

set_option: Callable[..., Any] = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the wrapping, such as path=FILE for `file`; may be given again.",
)


@click.group("vault")
def command() -> None:
    """Encrypt the project's data at rest, and erase a person from it.

    \b
    Examples:
      sfumato vault init
      sfumato vault init --wrapping file --set path=/media/stick/master.key
      sfumato vault rotate --data-keys
      sfumato vault erase patient-0017
    """


@command.command("init")
@click.option(
    "--wrapping",
    default="passphrase",
    show_default=True,
    help="What opens the master key: passphrase, keyring, file, or the name of a plugin.",
)
@set_option
@passphrase_option
@json_option
def init(wrapping: str, settings: tuple[str, ...], passphrase_fd: int | None, as_json: bool) -> None:
    """Make the keys of a vault for this project, and move its data into it.

    Every dataset gets a next version, encrypted; the versions before are retired and their data destroyed.
    If it is stopped, do it again: it goes on.

    \b
    Examples:
      sfumato vault init
      sfumato vault init --wrapping file --set path=/media/stick/master.key
    """
    from sfumato.data.opening import make_vault

    project = project_here("vault")
    vault, taken = make_vault(project, wrapping, access_from(passphrase_fd, settings))
    if as_json:
        emit(vault.status().to_data() | {"moved": list(taken.versions), "retired": taken.retired})
        return
    click.echo(f"Made a vault: its master key is opened by {wrapping!r}.")
    click.echo(
        "Whoever loses what opens it loses the data. Keep a second copy of that, away from this machine."
    )
    if taken.removed:
        click.echo(f"Moved into it: {', '.join(taken.versions) or 'nothing that is usable'}.")
        note(
            f"{taken.retired} versions from before are retired, and {taken.removed} plain items destroyed; "
            "backups of them are yours to destroy. Old versions still name their items by hashes of what was "
            "in them, and files by name where the policy kept paths."
        )


@command.command("status")
@click.option("--check", is_flag=True, help="Also check every stored item against its hash; needs no key.")
@json_option
def status(check: bool, as_json: bool) -> None:
    """Show what the vault holds; needs no key.

    \b
    Example:
      sfumato vault status --check
    """
    from sfumato.data.opening import open_vault

    vault = open_vault(project_here("read"))
    found = vault.status()
    if check:
        for name in vault.names():
            vault.check(name)
    if as_json:
        emit(found.to_data() | {"checked": check})
        return
    click.echo(f"Master key: generation {found.generation}, opened by {found.wrapping!r}")
    click.echo(f"Keys: of {found.owners} subjects, datasets and sealed files; {found.erased} erased")
    click.echo(f"Items: {found.items}" + (", all as they were written" if check else ""))


@command.command("rotate")
@click.option("--wrapping", default="", help="Open the new master key by something else. Default: as before.")
@set_option
@click.option("--data-keys", is_flag=True, help="Also take new data keys for everything stored from now on.")
@passphrase_option
@click.option(
    "--new-passphrase-fd",
    type=click.IntRange(0),
    help=f"Read the new passphrase from this descriptor. Default: the variable {NEW_PASSPHRASE}, a prompt, "
    "or the old one again.",
)
@json_option
def rotate(
    wrapping: str,
    settings: tuple[str, ...],
    data_keys: bool,
    passphrase_fd: int | None,
    new_passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Take a new master key, wrap every key anew, and destroy the old wrapped keys.

    Stopped at any moment, either the old master key is in force or the new one.

    \b
    Examples:
      sfumato vault rotate
      sfumato vault rotate --data-keys
    """
    from dataclasses import asdict, replace

    from sfumato.data.opening import rotate_vault

    project = project_here("vault")
    old = access_from(passphrase_fd, ())
    new = replace(access_from(new_passphrase_fd, settings, NEW_PASSPHRASE), project=project.root)
    if new.passphrase is None:
        new = replace(new, passphrase=old.passphrase)
    done = rotate_vault(project, old, new, wrapping=wrapping, data_keys=data_keys)
    if as_json:
        emit(asdict(done))
        return
    click.echo(f"Master key of generation {done.generation} in force; {done.keys} keys wrapped anew.")
    if data_keys:
        click.echo(f"{done.new_keys} new data keys for what is stored from now on.")
    click.echo("Copies of the key folder made before still open with the old master key: destroy them.")


@command.command("erase")
@click.argument("subject")
@click.option("--pseudonym", is_flag=True, help="SUBJECT is a pseudonym already; then no key is needed.")
@click.option("--yes", is_flag=True, help="Do not ask: erase.")
@population_option
@passphrase_option
@json_option
def erase_command(
    subject: str, pseudonym: bool, yes: bool, population: str | None, passphrase_fd: int | None, as_json: bool
) -> None:
    """Erase a person: destroy their keys, so that no version's copy of them can be read again.

    SUBJECT is the person's id as it was when the data came in, or "-" to read it from standard input, where
    no shell history keeps it. It cannot be undone. The record names the person by pseudonym only.

    \b
    Examples:
      sfumato vault erase patient-0017
      sfumato vault erase - --population patients --yes < id.txt
    """
    from sfumato.data.erasure import LIMITS, erase
    from sfumato.data.opening import open_vault

    project = project_here("erase")
    vault = open_vault(project, access_from(passphrase_fd, ()))
    if subject == "-":
        subject = sys.stdin.readline().rstrip("\r\n")
    known = subject if pseudonym else vault.pseudonym(subject, population_from(project.policy, population))
    vault.refuse_unknown(known)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest(
                "an erasure cannot be undone: confirm it with --yes, or run it on a terminal"
            )
        click.confirm(f"Erase the person {known} for ever?", abort=True, err=True)
    receipt = erase(vault, known, project.gate())
    left = [] if pseudonym else _elsewhere(vault, subject, known, ("", *project.policy.populations))
    if as_json:
        emit({"subject": known, **receipt.body["facts"], "row": receipt.rows[-1].seq, "elsewhere": left})
        return
    click.echo(f"Erased {known}; recorded in row {receipt.rows[-1].seq} of the ledger.")
    for scope in left:
        way = f"erase it there too, with --population {scope!r}"
        note(f"The same id is still in data of {_scope(scope)}: {way}.")
    note(f"Not covered: {'; '.join(LIMITS)}.")


def _elsewhere(vault: Vault, subject: str, erased: str, scopes: tuple[str, ...]) -> list[str]:
    """Return the populations under which the vault still holds data of an id; "" is those without one."""
    from sfumato.data.store import Place

    found = []
    for scope in scopes:
        name = vault.pseudonym(subject, scope)
        if name != erased and vault.knows(name) and not vault.erased(Place("", "", "", subject=name)):
            found.append(scope)
    return found


def _scope(population: str) -> str:
    return f"the population {population!r}" if population else "no population"
