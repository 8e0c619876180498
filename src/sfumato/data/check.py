"""Verifying a catalogue: everything is read and hashed again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from sfumato.core.errors import IntegrityError
from sfumato.data.catalogue import Catalogue
from sfumato.data.lineage import check_populations
from sfumato.data.recording import Known, compare
from sfumato.data.store import Store
from sfumato.data.version import TAKEN_OVER, Version


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked.

    Args:
        versions, items: how many.
        bytes: that the items put into the store.
        overdue: names in the store that only versions refer to whose time is over.
        loose: names in the store that no version refers to, left by an add that was stopped.
    """

    versions: int
    items: int
    bytes: int
    loose: tuple[str, ...]
    overdue: tuple[str, ...] = ()


def verify(
    catalogue: Catalogue,
    store: Store,
    datasets: Iterable[str] = (),
    *,
    ledger: tuple[Known, Known] = ({}, {}),
    over: Collection[tuple[str, str, str]] = (),
) -> Verified:
    """Hash every version and every item again, and follow every lineage.

    Args:
        datasets: names to look at; default: all.
        ledger: what the ledger knows of versions; see `sfumato.data.recording.recorded`.
        over: (dataset, label, hash) of versions that the ledger knows to be ended by retention: of them, and
            of no others, items may be missing.

    Raises:
        IntegrityError: names everything that does not verify.
        UnknownName: no such dataset.
    """
    wrong: list[str] = []
    versions: list[Version] = []
    chosen = tuple(datasets)
    for name in chosen or catalogue.names():
        found: list[Version] = []
        _try(wrong, partial(_collect, catalogue, name, found))
        versions += found
    names, ended = dict[str, str](), set[str]()
    for version in versions:
        _try(wrong, partial(check_populations, catalogue, version))
        _try(wrong, partial(catalogue.retired, version))
        if _taken_over(catalogue, version):
            continue
        if (version.dataset, version.label, version.hash) in over:
            ended |= {item.name for item in version.items}
            continue
        for item in version.items:
            names.setdefault(item.name, f"{version.spec} {item.path}")
    for name, where in names.items():
        _try(wrong, partial(store.check, name), where)
    wrong += compare(catalogue, *ledger, chosen)
    if wrong:
        shown = "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        raise IntegrityError(
            f"{len(wrong)} things do not verify: {shown}. Restore them from a backup; until then use nothing "
            "of these versions."
        )
    extra = () if chosen else tuple(name for name in store.names() if name not in names)
    loose = tuple(name for name in extra if name not in ended)
    overdue = tuple(name for name in extra if name in ended)
    count = sum(len(version.items) for version in versions)
    return Verified(len(versions), count, sum(i.bytes for v in versions for i in v.items), loose, overdue)


def _taken_over(catalogue: Catalogue, version: Version) -> bool:
    """Return whether a version's items were destroyed, because a vault holds them in a later one."""
    try:
        return catalogue.retired(version) == TAKEN_OVER
    except IntegrityError:
        return False


def _collect(catalogue: Catalogue, dataset: str, found: list[Version]) -> None:
    found += catalogue.versions(dataset, cuts=True)


def _try(wrong: list[str], step: Callable[[], object], where: str = "") -> None:
    try:
        step()
    except IntegrityError as error:
        wrong.append(f"{where}: {error}" if where else str(error))
