"""Files that appear whole or not at all, and hashes of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfumato.core.entropy import SYSTEM

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def _umask() -> int:
    """Return the umask of this process, as it was at the start."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)  # the one portable way to read it is to set it
    os.umask(mask)
    return mask


UMASK = _umask()


@contextlib.contextmanager
def whole(path: Path, *, mode: int | None = 0o644) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success fsync it and rename it into place.

    On any exception the partial file is removed and `path` is left as it was. The name of the aside file
    begins with a dot and ends with the suffix of `path`, because encoders pick a format by suffix. The umask
    holds: it takes its bits from `mode`. None is `private_mode` of the folder, whatever the umask.
    """
    if mode is None:
        make_private(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".sfumato-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(private_mode(path.parent) if mode is None else mode & ~UMASK)
        aside.replace(path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str, *, mode: int | None = 0o644) -> None:
    """Write bytes or text so that `path` holds either the old content or all of the new."""
    with whole(path, mode=mode) as aside:
        aside.write_bytes(data.encode() if isinstance(data, str) else data)


def private_mode(folder: Path) -> int:
    """Return the mode of a private file in a folder: 0600, or 0660 in a folder shared with a group."""
    return 0o660 if folder.stat().st_mode & 0o070 == 0o070 else 0o600


def open_private(path: Path, flags: int) -> int:
    """Open a private file by descriptor, made if need be; one made in a shared folder is the group's too."""
    handle = os.open(path, flags | os.O_CREAT, private_mode(path.parent))
    share(path)
    return handle


def share(path: Path) -> None:
    """Give the group of a shared folder what the umask took of a file of ours in it."""
    if private_mode(path.parent) != 0o660:
        return
    found = path.stat()
    if found.st_mode & 0o060 != 0o060 and found.st_uid == os.geteuid():
        path.chmod(found.st_mode | 0o060)


def make_private(folder: Path) -> None:
    """Make a folder, and those missing above it, private: its owner's, or the group's that its parent is."""
    if folder.is_dir():
        return
    make_private(folder.parent)
    shared = private_mode(folder.parent) == 0o660
    folder.mkdir(mode=0o770 if shared else 0o700, exist_ok=True)
    found = folder.stat()
    if shared and found.st_mode & 0o070 != 0o070 and found.st_uid == os.geteuid():
        folder.chmod(found.st_mode | 0o070)  # the umask took bits that the parent grants


def shred(path: Path) -> None:
    """Overwrite a file in place, make that durable, and remove it; whatever else it is, only remove it.

    Where the file system writes elsewhere (copy on write, snapshots, flash), old bytes may stay behind.
    """
    if path.is_symlink() or not path.is_file():  # somebody else's file may lie behind a link
        path.unlink()
        sync_folder(path.parent)
        return
    if not os.access(path, os.W_OK):
        path.chmod(0o600)  # as some backups put files back
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.write(SYSTEM.bytes(size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """Return the one JSON encoding of `value` that hashes are taken over (sorted keys, no spaces, no NaN)."""
    return _CANONICAL.encode(value).encode()


def digest_of(value: Any) -> str:
    """Return the SHA-256 of `canonical(value)`, as hex."""
    return hashlib.sha256(canonical(value)).hexdigest()
