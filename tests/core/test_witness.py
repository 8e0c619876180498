"""A witness on another machine: what it remembers, and what it stops."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.core.anchor import FileAnchor, Head
from sfumato.core.errors import (
    IntegrityError,
    InvalidRequest,
    LedgerRolledBack,
    LedgerTampered,
    LedgerUnavailable,
)
from sfumato.core.event import PureDP
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.core.remote_anchor import Anchors, RemoteAnchor
from sfumato.core.verify import verify
from sfumato.core.witness import Memory, WitnessServer

NAME = "0" * 32
HASH = "a" * 64


class Running:
    """A witness in a thread, to stop and to start again."""

    def __init__(self, file: Path) -> None:
        self.file, self.port, self.token = file, 0, ""
        self.start()

    def start(self) -> None:
        self.server = WitnessServer(("127.0.0.1", self.port), Memory(self.file), self.token)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def anchor(self, ledger: str = NAME, *, required: bool = True) -> RemoteAnchor:
        return RemoteAnchor(self.url, ledger, required=required, timeout=2)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "heads.txt")
    yield running
    if running.thread.is_alive():
        running.stop()


def opened(path: Path, witness: Running, *, required: bool = True) -> Ledger:
    first = Ledger(path, create=True)
    first.close()
    remote = witness.anchor(first.id, required=required)
    ledger = Ledger(path, Anchors(FileAnchor(path.with_suffix(".heads")), remote))
    ledger.open_population("p", epsilon=1, delta=0, unit="person")
    ledger.open_share("p", "all", kind="sum", epsilon=1, delta=0)
    return ledger


def charge(ledger: Ledger) -> None:
    row = ledger.reserve({}, PureDP("0.01"), population="p", share="all")
    ledger.settle(row.seq, receipt="r")


def test_it_remembers_the_newest_head_over_a_restart(witness: Running) -> None:
    anchor = witness.anchor()
    assert anchor.newest() is None
    for seq in (1, 3, 2):
        anchor.advance(Head(seq, HASH))
    assert anchor.newest() == Head(3, HASH)
    witness.stop()
    witness.file.write_bytes(witness.file.read_bytes() + b"torn")
    witness.start()
    assert anchor.newest() == Head(3, HASH)
    assert witness.anchor("1" * 32).newest() is None
    anchor.advance(Head(3, HASH))
    with pytest.raises(LedgerTampered, match="another row 2"):
        anchor.advance(Head(2, "b" * 64))


def test_book_files_and_receipts_put_back_together_are_still_found(tmp_path: Path, witness: Running) -> None:
    ledger = opened(tmp_path / "l.db", witness)
    ledger.close()
    for name in ("l.db", "l.heads"):
        shutil.copy(tmp_path / name, tmp_path / f"old-{name}")
    ledger = opened(tmp_path / "l.db", witness)
    charge(ledger)
    ledger.close()
    for name in ("l.db", "l.heads"):
        shutil.copy(tmp_path / f"old-{name}", tmp_path / name)
    blind = Ledger(tmp_path / "l.db", FileAnchor(tmp_path / "l.heads"))  # without the witness it passes
    verify(blind)
    blind.close()
    with pytest.raises(LedgerRolledBack, match="older"):
        opened(tmp_path / "l.db", witness)


def test_a_copy_that_went_on_elsewhere_is_found(tmp_path: Path, witness: Running) -> None:
    ledger = opened(tmp_path / "l.db", witness)
    (tmp_path / "twin").mkdir()
    shutil.copy(tmp_path / "l.db", tmp_path / "twin" / "l.db")
    twin = Ledger(tmp_path / "twin" / "l.db", witness.anchor(ledger.id))
    charge(ledger)
    with pytest.raises(LedgerRolledBack):
        charge(twin)


def test_without_an_answer_nothing_is_charged(tmp_path: Path, witness: Running) -> None:
    ledger = opened(tmp_path / "l.db", witness)
    witness.stop()
    head = ledger.head()
    with pytest.raises(LedgerUnavailable, match="witness_required = false"):
        charge(ledger)
    assert ledger.head() == head
    witness.start()
    charge(ledger)


def test_a_release_ends_though_the_witness_went_away(tmp_path: Path, witness: Running, monkeypatch) -> None:
    """Its charge was told; the settlement can only lower it, and is told with the next charge."""
    ledger = opened(tmp_path / "l.db", witness)
    row = ledger.reserve({}, PureDP("0.01"), population="p", share="all")

    def silent(head: Head) -> None:
        raise LedgerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.anchor, "advance", silent)
        ledger.settle(row.seq, receipt="r")
        with pytest.raises(LedgerUnavailable):
            charge(ledger)
    assert [entry.kind for entry in ledger.entries()][-3:] == ["reserve", "settle", "reserve"]
    verify(ledger)  # the last charge stands, unreleased


def test_the_policy_may_go_on_without_it(tmp_path: Path, witness: Running, caplog) -> None:
    ledger = opened(tmp_path / "l.db", witness, required=False)
    witness.stop()
    charge(ledger)
    assert "does not answer" in caplog.text
    witness.start()
    charge(ledger)
    assert witness.anchor(ledger.id).newest() == ledger.head()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 500 x\r\n\r\n{}",
        b"HTTP/1.0 200 x\r\n\r\n<html>",
        b"HTTP/1.0 200 x\r\n\r\n[1]",
        b'HTTP/1.0 200 x\r\n\r\n{"ledger": "other", "seq": 1, "hash": "aa"}',
        b'HTTP/1.0 200 x\r\n\r\n{"ledger": "%s", "seq": true, "hash": "%s"}' % (NAME.encode(), HASH.encode()),
        b"HTTP/1.0 404 x\r\n\r\nnot found",
        b"HTTP/1.0 302 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n{}",
        b"",
    ],
)
def test_another_answer_than_a_head_is_no_answer(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        anchor = RemoteAnchor(f"http://127.0.0.1:{listening.getsockname()[1]}", NAME, timeout=2)
        with pytest.raises(LedgerUnavailable):
            anchor.newest()
        thread.join()


@pytest.mark.parametrize("where", ["the headers", "the body"])
def test_a_witness_that_drips_is_cut_off(where: str) -> None:
    """Each byte comes in time, and the book is locked meanwhile."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(b"HTTP/1.0 200 x\r\n" + (b"" if where == "the headers" else b"\r\n"))
                while not stop.wait(0.05):
                    client.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        anchor = RemoteAnchor(f"http://127.0.0.1:{listening.getsockname()[1]}", NAME, timeout=0.3)
        start = time.perf_counter()
        with pytest.raises(LedgerUnavailable):
            anchor.newest()
        assert time.perf_counter() - start < 5
        stop.set()
        thread.join()


@pytest.mark.parametrize("head", [Head(6, HASH), Head(7, "b" * 64)])
def test_a_witness_that_kept_something_else_has_not_kept_it(
    witness: Running, monkeypatch, head: Head
) -> None:
    answer = {"ledger": NAME, "seq": head.seq, "hash": head.hash}
    monkeypatch.setattr(RemoteAnchor, "_ask", lambda *_: (200, answer))
    with pytest.raises(LedgerUnavailable, match="told row 7"):
        witness.anchor().advance(Head(7, HASH))


@pytest.mark.parametrize(
    "url", ["http://witness.example", "http://127.0.0.1.example", "ftp://127.0.0.1", "x"]
)
def test_a_word_never_goes_to_another_machine_in_the_clear(url: str) -> None:
    with pytest.raises(InvalidRequest, match="https"):
        RemoteAnchor(url, NAME)


def test_a_full_disk_leaves_no_half_line_in_the_memory(tmp_path: Path, monkeypatch) -> None:
    memory, real = Memory(tmp_path / "heads"), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, data[:20]))
        with pytest.raises(OSError, match="space"):
            memory.keep(NAME, Head(1, HASH))
    assert memory.newest(NAME) is None
    assert memory.keep(NAME, Head(2, HASH))
    assert Memory(tmp_path / "heads").newest(NAME) == Head(2, HASH)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 400),
        ("GET", "/v1/heads/../x", None, 400),
        ("GET", f"/v1/heads/{NAME}", None, 404),
        ("POST", f"/v1/heads/{NAME}", "{", 400),
        ("POST", f"/v1/heads/{NAME}", "[]", 400),
        ("POST", f"/v1/heads/{NAME}", '{"seq": -1, "hash": "x"}', 400),
        ("POST", f"/v1/heads/{NAME}", f'{{"seq": 1, "hash": "{HASH}\\n"}}', 400),
        ("POST", f"/v1/heads/{NAME}", f'{{"seq": true, "hash": "{HASH}"}}', 400),
        ("POST", f"/v1/heads/{NAME}", "x" * 5000, 400),
    ],
)
def test_the_server_refuses_what_is_no_head(witness: Running, method, path, body, status) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=5)
    connection.request(method, path, body)
    assert connection.getresponse().status == status
    connection.close()
    assert not witness.file.exists()


def test_a_word_keeps_strangers_out(witness: Running, monkeypatch) -> None:
    witness.server.token = "sesame"
    with pytest.raises(LedgerUnavailable, match="401"):
        witness.anchor().newest()
    monkeypatch.setenv("SFUMATO_WITNESS_TOKEN", "sesame")
    witness.anchor().advance(Head(1, HASH))
    assert witness.anchor().newest() == Head(1, HASH)


@pytest.mark.parametrize("line", ["nonsense", f"{NAME} 1 {HASH}\n{NAME} 1 {'b' * 64}"])
def test_a_damaged_memory_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "heads").write_text(line + "\n")
    with pytest.raises(IntegrityError, match="restore the file"):
        Memory(tmp_path / "heads")


def test_a_project_asks_its_witness(tmp_path: Path, witness: Running) -> None:
    Project.init(tmp_path / "p").ledger.close()
    policy = tmp_path / "p" / "sfumato.toml"
    policy.write_text(f'[project]\nname = "p"\n[ledger]\nwitness = "{witness.url}"\n')
    ledger = Project(tmp_path / "p").ledger
    ledger.open_population("p", epsilon=1, delta=0, unit="person")
    assert witness.anchor(ledger.id).newest() == ledger.head()
    witness.stop()
    with pytest.raises(LedgerUnavailable):
        Project(tmp_path / "p").gate()


@pytest.mark.parametrize("url", ["http://witness.example", "https://u:p@host", "ftp://127.0.0.1", "host"])
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    with pytest.raises(Exception, match=r"ledger\.witness"):
        Policy.parse(f'[project]\nname = "p"\n[ledger]\nwitness = "{url}"\n')
    Policy.parse('[project]\nname = "p"\n[ledger]\nwitness = "https://witness.example/hospital"\n')


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sfumato.core.witness", "--port", "0", "--file", tmp_path / "h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2].rstrip(",")
        RemoteAnchor(url, NAME).advance(Head(1, HASH))
        process.terminate()
    assert (tmp_path / "h").read_text() == f"{NAME} 1 {HASH}\n"
