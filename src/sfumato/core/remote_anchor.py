"""An anchor on another machine: a witness that remembers the newest head, asked before every charge.

Whoever can write the book, the anchor file and the receipts can put older ones back; not so where a witness
that they cannot write has seen a newer head. The server is `python -m sfumato.core.witness`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from sfumato.core.anchor import FileAnchor, Head
from sfumato.core.errors import InvalidRequest, LedgerTampered, LedgerUnavailable

TIMEOUT_SECONDS = 5.0
#: Environment variable with the word that the witness asks of its clients.
TOKEN = "SFUMATO_WITNESS_TOKEN"
ANSWER_BYTES = 4096
LOCAL = ("localhost", "127.0.0.1", "::1")
_LOG = logging.getLogger("sfumato")


class RemoteAnchor:
    """A witness, asked over HTTP: GET the newest head, POST a new one.

    Args:
        url: of the witness; https, or http on this machine.
        ledger: the ledger's own name, from its first row.
        required: without an answer, refuse; else go on, and say so in the log.

    Raises:
        LedgerUnavailable: no answer, or none that reads, and it is required.
        LedgerTampered: the witness has seen another row in the place of this one.
    """

    def __init__(
        self, url: str, ledger: str, *, required: bool = True, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme, parts.hostname in LOCAL) != ("http", True):
            raise InvalidRequest(f"a witness is asked by https, or by http on this machine; got {url!r}")
        self.url, self.ledger, self.required, self.timeout = url, ledger, required, timeout

    def newest(self) -> Head | None:
        """Return the newest head that the witness has seen; None where it has seen none."""
        try:
            status, data = self._ask("GET")
            return None if status == 404 else _head(data)
        except _NoAnswer as error:
            self._give_up(error)
            return None

    def heads(self) -> list[Head]:
        """Return the newest head, if any."""
        newest = self.newest()
        return [newest] if newest is not None else []

    def advance(self, head: Head) -> None:
        """Tell the witness a head; it keeps every head it is told."""
        try:
            status, data = self._ask("POST", {"seq": head.seq, "hash": head.hash})
            if status == 409:
                raise LedgerTampered(
                    f"the witness {self.url} has seen another row {head.seq} of ledger {self.ledger}: two "
                    "copies of the book went on separately. Nothing is released; restore the copy that the "
                    "receipts belong to."
                )
            if _head(data) != head:
                raise _NoAnswer(f"it was told row {head.seq}, and answers {str(data)[:100]}")
        except _NoAnswer as error:
            self._give_up(error)

    def _ask(self, method: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        path = f"{parts.path.rstrip('/')}/v1/heads/{self.ledger}"
        connection = None
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
            connection.connect()
            with _cut_after(connection.sock, 2 * self.timeout):
                connection.request(method, path, json.dumps(body) if body else None, headers)
                answer = connection.getresponse()
                content = answer.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _NoAnswer(f"{type(error).__name__}: {error}") from error
        finally:
            if connection is not None:
                connection.close()
        allowed = (200, 404) if method == "GET" else (200, 409)
        try:
            data = json.loads(content)
        except ValueError as error:
            raise _NoAnswer(f"status {answer.status}, and no JSON") from error
        if answer.status not in allowed or not isinstance(data, dict) or data.get("ledger") != self.ledger:
            raise _NoAnswer(f"status {answer.status}: {str(data)[:100]}")
        return answer.status, data

    def _give_up(self, error: Exception) -> None:
        message = f"the ledger's witness {self.url} does not answer ({error})"
        if self.required:
            raise LedgerUnavailable(
                f"{message}. Nothing is released while nobody can say whether the book is the newest. Start "
                "the witness, or set witness_required = false under [ledger] in sfumato.toml."
            ) from error
        _LOG.warning("%s; going on without it, as sfumato.toml allows", message)


class Anchors:
    """A file and a witness together: the book must contain the heads of both."""

    def __init__(self, file: FileAnchor, witness: RemoteAnchor) -> None:
        self.file, self.witness = file, witness

    def heads(self) -> list[Head]:
        """Return the newest head of each."""
        return self.file.heads() + self.witness.heads()

    def newest(self) -> Head | None:
        """Return the newer of the two."""
        return max(self.heads(), default=None)

    def advance(self, head: Head) -> None:
        """Remember a head in the file first, then with the witness."""
        self.file.advance(head)
        self.witness.advance(head)


@contextlib.contextmanager
def _cut_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection after a time, however steadily it drips: the book is locked meanwhile."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _NoAnswer(Exception):
    """The witness cannot be reached, or what it says does not read."""


def _head(data: dict[str, Any]) -> Head:
    seq, digest = data.get("seq"), data.get("hash")
    if (
        type(seq) is not int
        or seq < 1
        or not isinstance(digest, str)
        or not re.fullmatch("[0-9a-f]{64}", digest)
    ):
        raise _NoAnswer(f"not a head: {str(data)[:100]}")
    return Head(seq, digest)
