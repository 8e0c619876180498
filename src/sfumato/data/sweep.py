"""Sweeping: what an add that was stopped left in the store goes."""

from __future__ import annotations

from sfumato.core.files import shred
from sfumato.data.catalogue import Catalogue
from sfumato.data.store import Store


def sweep(catalogue: Catalogue, store: Store) -> tuple[str, ...]:
    """Remove what is stored and belongs to no version, and return its names. Needs no key.

    What a killed writer left half written goes too; its names begin with a dot.

    Nobody can add or derive a version meanwhile, and a version that does not read keeps everything.

    Raises:
        InvalidRequest: somebody is adding a version now.
        IntegrityError: a version was changed; nothing was removed.
    """
    with catalogue.quiet():
        kept = {item.name for version in catalogue.all() for item in version.items}
        loose = tuple(name for name in store.names() if name not in kept)
        for name in loose:
            store.remove(name)
        aside = tuple(store.aside())  # nobody is writing: whoever does holds a claim
        for path in aside:
            shred(path)
    return (*loose, *(path.name for path in aside))
