"""Rotation: a new master key over every data key, and new data keys for what comes next."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.core.entropy import SYSTEM
from sfumato.data.keyfiles import Head, KeyFolder
from sfumato.data.keys import Keys, add_key, open_key
from sfumato.data.sealing import KEY_BYTES, seal_bytes
from sfumato.data.wrapping import CATALOGUE, Access, Wrapping


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did."""

    generation: int
    keys: int
    new_keys: int


def rotate(
    keys: Keys, *, wrapping: str = "", access: Access | None = None, data_keys: bool = False
) -> Rotated:
    """Wrap every key anew under a new master key, and destroy the old wrapped keys.

    The new generation is written beside the old one and made durable; replacing vault.json switches over.
    A process killed before that leaves the old master key in force, after it the new one; what the loser
    wrote is destroyed when the vault is next opened.

    Args:
        wrapping: how the new master key is wrapped; empty: as the old one.
        access: what the new wrapping may use; None: the same as before.
        data_keys: also make every owner a new data key, for items from now on; older items keep theirs.

    Raises:
        VaultLocked: the old or the new wrapping's key is not to be had; nothing was changed.
    """
    files, access = keys.files, access or keys.access
    with files.lock():
        files.tidy()
        old, master = keys.unlock()
        plugin: Wrapping = CATALOGUE.build(wrapping or old.wrapping, access=access)
        previous = old.record if wrapping in ("", old.wrapping) else None
        new_master = SYSTEM.bytes(KEY_BYTES)
        draft = Head(old.vault, old.generation + 1, wrapping or old.wrapping, {})
        record = plugin.wrap(new_master, draft.context("master"), previous=previous)
        new = Head(draft.vault, draft.generation, draft.wrapping, record)
        files.begin_rotation(old.generation, new.generation)
        try:
            done = _rewrap(files, (old, master), (new, new_master), data_keys)
            files.write_head(new)
        finally:
            files.end_rotation()
    former: Wrapping = CATALOGUE.build(old.wrapping, access=keys.access)
    former.forget(old.record)
    keys.adopt(new, new_master, access)
    return done


def _rewrap(files: KeyFolder, old: tuple[Head, bytes], new: tuple[Head, bytes], data_keys: bool) -> Rotated:
    head, master = new
    moved = added = 0
    key = open_key(files, *old, "pseudonym", 0)
    files.write_key(files.pseudonym_key(head.generation), seal_bytes(master, key, head.context("pseudonym")))
    for owner in list(files.owners(old[0].generation)):
        numbers = files.numbers(old[0].generation, owner)
        for number in numbers:
            key = open_key(files, *old, owner, number)
            sealed = seal_bytes(master, key, head.context(owner, number))
            files.write_key(files.key(head.generation, owner, number), sealed)
            moved += 1
        if data_keys and numbers:
            add_key(files, head, master, owner, numbers[-1] + 1)
            added += 1
    return Rotated(head.generation, moved, added)
