"""A process of its own for the race and kill tests of the vault.

vault_worker.py sweep erase|rotate|careless BASE OUT KEYFILE
    kill a fork at its 1st, 2nd, ... touch of the disk
vault_worker.py put|erase|rotate PROJECT SUBJECT COUNT
    race: start when the file `go` appears
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sfumato.core.errors import Erased
from sfumato.data import rotation
from sfumato.data.keyfiles import KeyFolder, owner_of
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

TOUCHES = ("fsync", "replace", "unlink", "rmdir", "mkdir")


def die_at(touch: int) -> None:
    """Kill this process just before it touches the disk for the `touch`-th time."""
    seen = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == touch:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return call

    for name in TOUCHES:
        setattr(os, name, counted(getattr(os, name)))


def careless(vault: Vault, access: Access) -> None:
    """The wrong twin of a rotation: switch over first, write the keys afterwards."""
    real, write_head = rotation._rewrap, KeyFolder.write_head

    def late(files: KeyFolder, old: Any, new: Any, data_keys: bool) -> Any:
        files.write_key(files.pseudonym_key(new[0].generation), b"")
        write_head(files, new[0])
        return real(files, old, new, data_keys)

    rotation._rewrap = late  # type: ignore[assignment]
    rotate(vault.keys, access=access)


def sweep(what: str, base: Path, out: Path, key_file: Path) -> None:
    touch, step = 0, 3 if what == "careless" else 1
    while True:
        touch += step
        folder = out / f"{touch:03d}"
        shutil.copytree(base, folder)
        child = os.fork()
        if child == 0:
            vault = Vault.of(folder)
            subject = vault.pseudonym("Ada Lovelace")
            die_at(touch)
            access = Access(folder, options={"path": str(key_file)})
            if what == "erase":
                vault.erase(subject)
            elif what == "rotate":
                rotate(vault.keys, access=access)
            else:
                careless(vault, access)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, status
            print(touch - 1)
            return


def race(what: str, project: Path, subject: str, count: int) -> None:
    vault = Vault.of(project)
    place = Place("scans", "1", "scan", vault.pseudonym(subject))
    (project / f"ready-{os.getpid()}").touch()
    while not (project / "go").exists():
        time.sleep(0.002)
    for number in range(count):
        if what == "rotate":
            rotate(vault.keys, data_keys=True)
        elif what == "erase":
            vault.keys.erase(owner_of("subject", place.subject))
        else:
            try:
                print(vault.put(f"{os.getpid()} {number}".encode(), place))
            except Erased:
                print("erased")


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        sweep(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        race(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
