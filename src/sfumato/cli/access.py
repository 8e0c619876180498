"""What opens a vault, and whose people are meant: options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from sfumato.core.errors import InvalidRequest, UnknownName

if TYPE_CHECKING:
    from sfumato.core.policy import Policy
    from sfumato.data.wrapping import Access

passphrase_option: Callable[..., Any] = click.option(
    "--passphrase-fd",
    type=click.IntRange(0),
    help="Read the vault's passphrase, one line, from this open file descriptor. Default: the variable "
    "SFUMATO_PASSPHRASE, or a prompt.",
)
population_option: Callable[..., Any] = click.option(
    "--population",
    metavar="P",
    default=None,
    help='Which people the id is one of; "" for datasets without a population.  [default: the policy\'s only '
    "one]",
)


def access_from(descriptor: int | None, settings: Iterable[str] = (), variable: str = "") -> Access:
    """Return what the command line gives a wrapping.

    Args:
        settings: KEY=VALUE each.
        variable: an environment variable with the passphrase, beside the wrapping's own.
    """
    from sfumato.data.wrapping import Access, read_descriptor

    passphrase = os.environ.get(variable) if variable else None
    if descriptor is not None:
        passphrase = read_descriptor(descriptor)
    options = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise InvalidRequest(f"a setting is KEY=VALUE, got {setting!r}")
        options[key] = value
    return Access(passphrase=passphrase, options=options)


def population_from(policy: Policy, asked: str | None) -> str:
    """Return the population that a person's id is one of.

    Raises:
        InvalidRequest: the policy declares several, and none was named. UnknownName: it declares no such one.
    """
    known = tuple(policy.populations)
    if asked is None:
        if len(known) > 1:
            raise InvalidRequest(
                f"the policy declares several populations, and one id may be another person in each: name it "
                f"with --population: {', '.join(sorted(known))}"
            )
        return known[0] if known else ""
    if asked and asked not in known:
        raise UnknownName("population", asked, known)
    return asked
