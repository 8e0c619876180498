"""What a caller may choose about covers, zones and things kept, and what the policy says to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import PolicyRefused
from sfumato.core.policy import FILE_NAME, Policy, Redact
from sfumato.redaction.covers import CATALOGUE
from sfumato.redaction.zones import Zone, zones_of
from sfumato.vision.choice import expand

if TYPE_CHECKING:
    from sfumato.redaction.request import Request


def is_secure(cover: str) -> bool:
    """Return whether a cover leaves nothing of what it hides.

    Raises:
        UnknownName: no cover of that name.
    """
    return bool(getattr(CATALOGUE.load(cover).module, "SECURE", False))


def chosen(
    request: Request, policy: Policy | None, hide: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Zone, ...]]:
    """Return the classes and zones to hide; `hide` are the classes without the wish for `only` some.

    Raises:
        PolicyRefused: `only` leaves out what the policy hides, and the policy does not allow that.
        InvalidRequest: two zones have one name.
    """
    rules = policy.redact if policy is not None else Redact()
    zones = zones_of((*(Zone(**zone.model_dump()) for zone in rules.zones), *_new(request, rules)))
    for zone in zones:
        if zone.cover:
            _no_weaker(zone.label, zone.cover, policy, own=zone.name in {one.name for one in rules.zones})
    if request.only is None:
        return hide, zones
    names = {zone.name for zone in zones}
    words = tuple(word for word in dict.fromkeys(request.only) if word not in names)
    if policy is not None and "only" not in rules.allow:
        covered = {label for word in words for label in (word, *expand(word))}
        less = [word for word in rules.hide if not {*(expand(word) or (word,))} <= covered]
        less += [f"the zone {zone.name}" for zone in rules.zones if zone.name not in request.only]
        if less:
            raise PolicyRefused(
                f"only {', '.join(request.only)} would leave out what the policy hides: {', '.join(less)}. "
                f"The rule: redact.hide and redact.zones in {FILE_NAME}. Leave out `only`, or let the policy "
                'say allow = ["only"] under [redact].'
            )
    return words, tuple(zone for zone in zones if zone.name in {*request.only, *request.keep})


def _new(request: Request, rules: Redact) -> tuple[Zone, ...]:
    """Return the zones of a request that are not word for word those of the policy."""
    ruled = [Zone(**zone.model_dump()) for zone in rules.zones]
    return tuple(zone for zone in request.zones if zone not in ruled)


def keep(request: Request, policy: Policy | None) -> tuple[str, ...]:
    """Return what is kept visible.

    Raises:
        PolicyRefused: something is to be kept, and the policy does not allow that.
    """
    if request.keep and policy is not None and "keep" not in policy.redact.allow:
        raise PolicyRefused(
            f"the policy allows nothing to be kept visible, and {', '.join(request.keep)} was asked for. The "
            f'rule: redact.allow in {FILE_NAME}. Leave it out, or let the policy say allow = ["keep"] under '
            "[redact]."
        )
    return tuple(dict.fromkeys(request.keep))


def covers(request: Request, policy: Policy | None) -> dict[str, str]:
    """Return class -> cover: the policy's, with those of the request where they are no weaker.

    Raises:
        UnknownName: a cover that is not in the catalogue.
        PolicyRefused: a cosmetic cover where the policy's is secure.
    """
    ruled = dict(policy.redact.covers) if policy is not None else {}
    for name in ruled.values():
        is_secure(name)
    for label, name in request.covers.items():
        _no_weaker(label, name, policy)
    return {**ruled, **request.covers}


def _no_weaker(label: str, cover: str, policy: Policy | None, *, own: bool = False) -> None:
    """Refuse a cosmetic cover for a class for which the policy has a secure one."""
    secure = is_secure(cover)
    if policy is None or secure or own:
        return
    rules = policy.redact
    words = (label, *expand(label))
    named = [name for word, name in rules.covers.items() if {word, *expand(word)} & set(words)]
    named = named or [rules.covers.get("*", rules.cover)]
    if any(is_secure(name) for name in named):
        raise PolicyRefused(
            f"the policy's cover of {label} is {named[0]!r}, which is secure, and {cover!r} is cosmetic: "
            f"what it leaves can be recognised. The rule: redact.cover, redact.covers in {FILE_NAME}. Use a "
            f"secure cover: {', '.join(name for name in CATALOGUE.names if is_secure(name))}."
        )
