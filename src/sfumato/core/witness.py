"""A witness: remembers the heads of ledgers on a machine that their writers cannot write to.

    python -m sfumato.core.witness --port 8790 --file heads.txt

GET  /v1/heads/LEDGER                             200 {"ledger", "seq", "hash"}: the newest; 404: none yet
POST /v1/heads/LEDGER {"seq": 7, "hash": "..."}   200: kept; 409: another row 7 was seen before

It keeps every head, appends only, and answers after fsync. It listens on this machine unless told otherwise;
put a web server with TLS in front of it. With SFUMATO_WITNESS_TOKEN set it asks for that word.
"""

from __future__ import annotations

import argparse
import errno
import hmac
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sfumato.core.anchor import Head
from sfumato.core.errors import IntegrityError
from sfumato.core.remote_anchor import TOKEN

PATH = re.compile(r"/v1/heads/([0-9a-f]{32})")
LINE = re.compile(rb"([0-9a-f]{32}) ([1-9][0-9]{0,17}) ([0-9a-f]{64})")
REQUEST_BYTES = 1024
IDLE_SECONDS = 10


class Memory:
    """Heads by ledger, in an append-only file.

    Raises:
        IntegrityError: the file does not read, or two heads in it contradict each other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._heads: dict[str, dict[int, str]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            match = LINE.fullmatch(line)
            if match is None:
                raise IntegrityError(f"line {number} of {path} is not 'ledger number hash'; restore the file")
            ledger, seq, digest = (part.decode() for part in match.groups())
            if self._heads.setdefault(ledger, {}).setdefault(int(seq), digest) != digest:
                raise IntegrityError(f"line {number} of {path} contradicts an earlier one; restore the file")
        if len(whole) != len(content):
            os.truncate(path, len(whole))  # an append that a power cut stopped was never answered

    def newest(self, ledger: str) -> Head | None:
        """Return the newest head of a ledger."""
        with self._lock:
            heads = self._heads.get(ledger)
            return Head(seq := max(heads), heads[seq]) if heads else None

    def keep(self, ledger: str, head: Head) -> bool:
        """Remember a head, durably; False where another row was seen in its place."""
        with self._lock:
            heads = self._heads.setdefault(ledger, {})
            if head.seq in heads:
                return heads[head.seq] == head.hash
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            line, size = f"{ledger} {head.seq} {head.hash}\n".encode(), os.fstat(handle).st_size
            try:
                if os.write(handle, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)  # a half line would swallow the next one
                raise
            finally:
                os.close(handle)
            heads[head.seq] = head.hash
            return True


class Handler(BaseHTTPRequestHandler):
    """One request; the server carries the memory and the token."""

    server: WitnessServer
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer with the newest head."""
        if (ledger := self._ledger()) is None:
            return
        head = self.server.memory.newest(ledger)
        if head is None:
            self._answer(404, {"ledger": ledger, "error": "no head of this ledger was seen yet"})
        else:
            self._answer(200, {"ledger": ledger, "seq": head.seq, "hash": head.hash})

    def do_POST(self) -> None:
        """Keep a head."""
        if (ledger := self._ledger()) is None:
            return
        try:
            size = int(self.headers.get("Content-Length", ""))
            if not 0 < size <= REQUEST_BYTES:
                raise ValueError(size)
            data = json.loads(self.rfile.read(size))
            if type(data["seq"]) is not int:
                raise ValueError(data["seq"])
            line = f"{ledger} {data['seq']:d} {data['hash']}".encode()
            if LINE.fullmatch(line) is None:
                raise ValueError(line)
            head = Head(data["seq"], data["hash"])
        except (ValueError, KeyError, TypeError):
            self._answer(400, {"error": 'the body must be {"seq": number, "hash": 64 hex digits}'})
            return
        if self.server.memory.keep(ledger, head):
            self._answer(200, {"ledger": ledger, "seq": head.seq, "hash": head.hash})
        else:
            self._answer(409, {"ledger": ledger, "error": f"another row {head.seq} was seen before"})

    def _ledger(self) -> str | None:
        token, given = self.server.token, self.headers.get("Authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            self._answer(401, {"error": f"the word in {TOKEN} is missing or wrong"})
        elif (match := PATH.fullmatch(self.path)) is None:
            self._answer(400, {"error": "the path must be /v1/heads/LEDGER"})
        else:
            return match[1]
        return None

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: who asked, and when, is nobody's business here."""


class WitnessServer(ThreadingHTTPServer):
    """The witness, ready to `serve_forever`."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], memory: Memory, token: str = "") -> None:
        self.memory, self.token = memory, token
        super().__init__(address, Handler)


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m sfumato.core.witness", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8790)
    parser.add_argument("--file", type=Path, default=Path("witness-heads.txt"), help="where heads are kept")
    chosen = parser.parse_args(arguments)
    memory = Memory(chosen.file)
    with WitnessServer((chosen.host, chosen.port), memory, os.environ.get(TOKEN, "")) as server:
        sys.stdout.write(
            f"witness on http://{chosen.host}:{server.server_address[1]}, heads in {chosen.file}\n"
        )
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
