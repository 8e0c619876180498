"""Downloads against a local server that can misbehave."""

from __future__ import annotations

import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest

from sfumato.core.errors import DownloadFailed, InvalidRequest, UnknownName
from sfumato.vision import fetch, models

DATA = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA; `manner` says how it misbehaves."""

    daemon_threads = True
    body = DATA
    ranges = True
    cut = 0  # bytes after which a connection is cut; 0: never
    cuts = 0  # how many connections are cut
    status = 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/model.onnx"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(server.body):
            self.send_error(416)
            return
        rest = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if server.cuts > 0 and server.cut:
            server.cuts -= 1
            rest = rest[: server.cut]
            self.close_connection = True
        self.wfile.write(rest)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def one(monkeypatch, no_models, server):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    digest = hashlib.sha256(DATA).hexdigest()
    own = replace(models.entry("yunet-2023mar"), url=server.url, sha256=digest, size=len(DATA))
    monkeypatch.setattr(models, "REGISTRY", (own, *models.REGISTRY[:1]))
    return own


def part(no_models, one):
    return no_models / (one.file + ".part")


def test_a_file_comes_whole_and_is_not_fetched_twice(server, one, no_models):
    heard = []
    path = fetch.pull(one.name, progress=lambda done, total: heard.append((done, total)))
    assert path == no_models / one.file
    assert path.read_bytes() == DATA
    assert heard[-1] == (len(DATA), len(DATA))
    assert heard == sorted(heard)
    assert fetch.pull(one.name) == path
    assert len(server.asked) == 1
    assert [item.name for item in no_models.iterdir()] == [one.file]


def test_a_cut_connection_goes_on_where_it_stopped(server, one):
    server.cut, server.cuts = 100_000, 2
    assert fetch.pull(one.name).read_bytes() == DATA
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_later_call_goes_on_as_well(server, one, no_models):
    no_models.mkdir()
    part(no_models, one).write_bytes(DATA[:250_000])
    assert fetch.pull(one.name).read_bytes() == DATA
    assert server.asked == ["bytes=250000-"]


def test_a_server_without_ranges_sends_it_anew(server, one, no_models):
    server.ranges = False
    no_models.mkdir()
    part(no_models, one).write_bytes(DATA[:250_000])
    assert fetch.pull(one.name).read_bytes() == DATA


def test_leftovers_of_another_file_are_replaced(server, one, no_models):
    no_models.mkdir()
    part(no_models, one).write_bytes(b"x" * 1000)
    assert fetch.pull(one.name).read_bytes() == DATA
    assert server.asked == ["bytes=1000-", None]


def test_leftovers_longer_than_the_file_are_replaced(server, one, no_models):
    no_models.mkdir()
    part(no_models, one).write_bytes(b"x" * 400_000)
    assert fetch.pull(one.name).read_bytes() == DATA


def test_wrong_bytes_are_never_kept(server, one, no_models):
    server.body = DATA[:-1] + b"!"
    with pytest.raises(DownloadFailed, match=r"not the published model.*sha256.*deleted"):
        fetch.pull(one.name)
    assert not list(no_models.iterdir())


def test_endless_bytes_are_cut_off(server, one, no_models):
    server.body = DATA + bytes(5_000_000)
    with pytest.raises(DownloadFailed, match="not the published model"):
        fetch.pull(one.name)
    assert not list(no_models.iterdir())


def test_a_truncated_file_is_not_taken_for_whole(server, one, no_models):
    server.body = DATA[:123_456]
    with pytest.raises(DownloadFailed, match=r"123,456 bytes are kept"):
        fetch.pull(one.name)
    assert not (no_models / one.file).exists()
    server.body = DATA
    assert fetch.pull(one.name).read_bytes() == DATA


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_error_of_the_server_is_named(server, one, no_models, status):
    server.status = status
    with pytest.raises(DownloadFailed, match=rf"answered {status}.*Without a network: fetch .* put it at"):
        fetch.pull(one.name)
    assert len(server.asked) == (3 if status == 500 else 1)
    assert not list(no_models.iterdir())


def test_no_network_is_one_clear_error(one, no_models):
    closed = "http://127.0.0.1:9/model.onnx"
    with pytest.raises(DownloadFailed) as caught:
        fetch.pull(one.name, url=closed, timeout=2)
    text = str(caught.value)
    assert "refused" in text
    assert str(no_models / one.file) in text
    assert one.url in text
    assert "\n" not in text


def test_a_mirror_must_send_the_same_bytes(server, one):
    assert fetch.pull(one.name, url=server.url + "?mirror").read_bytes() == DATA
    server.body = b"other" * 60_000
    with pytest.raises(DownloadFailed, match="not the published model"):
        fetch.pull(one.name, url=server.url, force=True)


def test_a_failed_forced_fetch_leaves_the_good_file(server, one):
    path = fetch.pull(one.name)
    server.status = 404
    with pytest.raises(DownloadFailed):
        fetch.pull(one.name, force=True)
    assert path.read_bytes() == DATA


def test_a_damaged_file_is_fetched_again(one, no_models):
    no_models.mkdir()
    (no_models / one.file).write_bytes(b"damaged")
    assert fetch.pull(one.name).read_bytes() == DATA


def test_other_schemes_and_names_are_refused(one, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    for url in (secret.as_uri(), "ftp://example.com/x", "model.onnx"):
        with pytest.raises(InvalidRequest, match="not an http or https address"):
            fetch.pull(one.name, url=url)
    with pytest.raises(UnknownName):
        fetch.pull("no-such-model")


def test_an_embedded_model_needs_no_network(server):
    assert fetch.pull("centerface").name == "centerface.onnx"
    assert server.asked == []


def test_a_cache_that_cannot_be_written_is_named(one, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFUMATO_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(DownloadFailed, match=r"cannot write to the model cache.*SFUMATO_MODELS"):
        fetch.pull(one.name)


def test_two_downloads_at_once_end_with_one_good_file(server, one, no_models):
    failures = []

    def work():
        try:
            fetch.pull(one.name, force=True)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (no_models / one.file).read_bytes() == DATA
    assert [item.name for item in no_models.iterdir()] == [one.file]
