"""How old a version's data is, and when its time is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sfumato.core.errors import IntegrityError
from sfumato.core.policy import Policy
from sfumato.data.version import Version


def since(versions: Iterable[Version], version: Version) -> tuple[tuple[str, datetime], ...]:
    """Return when what a version holds came in at the door: pairs of dataset and time, the oldest of each.

    A copy, a cut or a merge is as old as what it was made from.

    Args:
        versions: every version of the catalogue, cuts too.

    Raises:
        IntegrityError: a version that it was made from is missing.
    """
    known = {(one.dataset, one.label): one for one in versions}
    by_hash = {one.hash: one for one in known.values()}
    found: dict[str, datetime] = {}
    waiting, seen = [version], set[str]()
    while waiting:
        one = waiting.pop()
        if one.spec in seen:
            continue
        seen.add(one.spec)
        homes = {(item.home.dataset, item.home.version) for item in one.items}
        if at_the_door(one):
            homes |= {(one.dataset, one.label)}
        for home in homes:
            if home in known and home != (one.dataset, one.label):
                waiting.append(known[home])
            elif at_the_door(one):
                made = datetime.fromisoformat(one.created)
                found[one.dataset] = min(made, found.get(one.dataset, made))
            else:  # stored anew when something was cut out of it
                if absent := [digest for digest in one.parents if digest not in by_hash]:
                    raise IntegrityError(
                        f"version {absent[0][:16]}, which {one.spec} was made from, is missing"
                    )
                waiting += [by_hash[digest] for digest in one.parents]
    return tuple(sorted(found.items()))


def at_the_door(version: Version) -> bool:
    """Return whether a version was read from a source, and not made from other versions."""
    from sfumato.data.readers import CATALOGUE

    return not version.parents or version.facts.reader in CATALOGUE.names


def over_since(policy: Policy, versions: Iterable[Version], version: Version) -> tuple[datetime, int] | None:
    """Return when a version's time is over, and after how many days; None where it may stay.

    The shortest rule counts: its own dataset's, or that of a dataset whose data it holds.

    Args:
        versions: every version of the catalogue, cuts too.
    """
    ends = [
        (came + timedelta(days=days), days)
        for dataset, came in since(versions, version)
        for name in (dataset, version.dataset)
        if (days := policy.retention.days_of(name)) is not None
    ]
    return min(ends, default=None)
