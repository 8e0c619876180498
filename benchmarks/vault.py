"""What the vault costs: put and get, against the least that could encrypt the same bytes at all.

Peer: one bare AES-256-GCM call over the whole item and a plain durable file (write, fsync, rename); to read,
the file and one call. The vault adds a key per item, segments, the SHA-256 that names the ciphertext, and the
checks that the subject was not erased and the master key not rotated. Floor: the same file, not encrypted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from _bench import alternate, arguments, medians, report
from sfumato.core.files import write_whole
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

SIZES = {"4kB": 4 << 10, "1MB": 1 << 20, "16MB": 16 << 20}


def runs(vault: Vault, folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """Return what is timed for one size."""
    data, place = os.urandom(size), Place("bench", "1", "item", vault.pseudonym("somebody"))
    cipher, peer, floor = AESGCM(os.urandom(32)), folder / f"{size}.gcm", folder / f"{size}.raw"

    def bare_put() -> None:
        nonce = os.urandom(12)
        write_whole(peer, nonce + cipher.encrypt(nonce, data, b"place"))

    def bare_get() -> bytes:
        sealed = peer.read_bytes()
        return cipher.decrypt(sealed[:12], sealed[12:], b"place")

    bare_put()
    name = vault.put(data, place)
    assert vault.get(name, place) == bare_get() == data
    return {
        "floor put": lambda: write_whole(floor, data),
        "bare put": bare_put,
        "vault put": lambda: vault.put(data, place),
        "bare get": bare_get,
        "vault get": lambda: vault.get(name, place),
    }


def main() -> None:
    options = arguments(__doc__ or "")
    rounds = 15 if options.quick else 60
    result: dict[str, object] = {}
    lines = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, tempfile.TemporaryDirectory() as outside:
        vault = Vault.init(Path(name), "file", Access(options={"path": f"{outside}/master.key"}))
        for label, size in SIZES.items():
            middle = medians(alternate(runs(vault, Path(name), size), rounds))
            result[f"put_{label}_over_bare_gcm"] = middle["vault put"] / middle["bare put"]
            result[f"put_{label}_over_plain_file"] = middle["vault put"] / middle["floor put"]
            result[f"get_{label}_over_bare_gcm"] = middle["vault get"] / middle["bare get"]
            lines += [f"{label} {what}: {1000 * value:.2f} ms" for what, value in middle.items()]
    report(result, lines, options.json)


if __name__ == "__main__":
    main()
