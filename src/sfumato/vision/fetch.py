"""Fetching a model's file: resumable, checked before it appears, one clear error without a network."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from sfumato._version import __version__
from sfumato.core.errors import DownloadFailed, InvalidRequest
from sfumato.core.files import sha256_of, write_whole
from sfumato.vision.models import Entry, by_hand, entry, path, place, state

#: Called with (bytes here, bytes in all).
Progress = Callable[[int, int], None]

_BLOCK = 1 << 16
_TRIES = 3


def pull(
    name: str,
    *,
    url: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> Path:
    """Fetch a model into the cache, unless it is there, and return its path.

    Guarantee:
        The file appears under its name only when it has the published length and SHA-256, whatever address it
        came from. A broken download goes on where it stopped, in this call and in later ones.

    Args:
        name: a name of the registry.
        url: another address (a mirror inside a company); the hash asked for stays the same.
        force: fetch again, for instance when the file in the cache is damaged.
        progress: told how far it is.
        timeout: seconds without a byte after which a try is given up.

    Raises:
        UnknownName: no model of that name.
        InvalidRequest: `url` is neither http nor https.
        DownloadFailed: no network, an error of the server, or what came is not the published file.
    """
    one = entry(name)
    if one.package or (not force and state(one) == "installed"):
        return path(name)
    address = url or one.url
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise InvalidRequest(
            f"{address!r} is not an http or https address. A file is used with --model, or copied."
        )
    target = place(one)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _aside(target) as part:
            resumed = part.stat().st_size > 0
            _fill(one, address, part, progress, timeout)
            if resumed and sha256_of(part) != one.sha256:  # the bytes here were of another file: from nothing
                os.truncate(part, 0)
                _fill(one, address, part, progress, timeout)
            _accept(one, address, part, target)
    except OSError as error:
        raise DownloadFailed(
            f"cannot write to the model cache {str(target.parent)!r}: {error.strerror or error}. Set "
            "SFUMATO_MODELS to a folder of yours."
        ) from error
    return target


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Yield the file that bytes are gathered in; a private one while another download holds the usual one."""
    part = target.with_name(target.name + ".part")
    try:
        import fcntl
    except ImportError:  # Windows: two downloads of one model at once may fail there, never succeed wrongly
        part.touch()
        yield part
        return
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends when the file is closed
            mine = os.path.samestat(os.fstat(file.fileno()), part.stat())
        except OSError:
            mine = False
        if mine:
            yield part
            return
    handle, name = tempfile.mkstemp(prefix=part.name + "-", dir=part.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _fill(one: Entry, address: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Bring the aside file to its full length, trying again as long as a try brings it further than ever."""
    left = _TRIES
    furthest = part.stat().st_size
    while True:
        if furthest >= one.size:
            return
        try:
            _transfer(one, address, part, progress, timeout)
            problem = f"the connection ended after {part.stat().st_size:,} of {one.size:,} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            problem = f"the server answered {error.code} {error.reason}"
            left = 0 if error.code in (401, 403, 404, 410) else left
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", "") or error) or type(error).__name__
        here = part.stat().st_size
        left = _TRIES if here > furthest else left - 1
        furthest = max(furthest, here)
        if left <= 0:
            kept = part.stat().st_size
            note = f" {kept:,} bytes are kept; the next try goes on from there." if kept else ""
            if not kept:
                part.unlink(missing_ok=True)
            raise DownloadFailed(
                f"could not fetch the model {one.name!r} from {address}: {problem}.{note} {by_hand(one)}"
            )


def _transfer(one: Entry, address: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Ask for what is missing and write what comes; a server that sends the whole file starts it anew."""
    have = part.stat().st_size
    headers = {"User-Agent": f"sfumato/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(address, headers=headers)  # the scheme was checked by `pull`
    answer = urllib.request.urlopen(request, timeout=timeout)
    with answer, part.open("r+b") as out:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        at = have if resumed else 0
        out.seek(at)
        if not resumed:
            out.truncate(0)
        while at <= one.size and (block := _read(answer)):
            out.write(block)
            at += len(block)
            if progress is not None:
                progress(min(at, one.size), one.size)
        out.flush()
        os.fsync(out.fileno())


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Return the next bytes; an error of the network must not look like one of the disk."""
    try:
        return answer.read(_BLOCK)
    except OSError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def _accept(one: Entry, address: str, part: Path, target: Path) -> None:
    """Put the file into place if it is the published one; the aside file goes either way."""
    data = part.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    part.unlink(missing_ok=True)
    if digest != one.sha256:
        raise DownloadFailed(
            f"what came from {address} is not the published model {one.name!r}: {len(data):,} bytes with "
            f"sha256 {digest}, published are {one.size:,} bytes with {one.sha256}. It was deleted. Try "
            f"again, or look at {one.page}"
        )
    write_whole(target, data)
