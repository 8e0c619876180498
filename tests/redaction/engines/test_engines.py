"""What travels to workers and what comes of them, without a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.core.errors import (
    InvalidRequest,
    MediaError,
    MissingExtra,
    UnknownName,
    UnreadableMedia,
)
from sfumato.core.receipt import Output
from sfumato.redaction.covers import CATALOGUE as COVERS
from sfumato.redaction.engines import engine_for, parcel
from sfumato.redaction.engines import worker as workers
from sfumato.redaction.engines.local import Local, free_memory
from sfumato.redaction.engines.parcel import build, pack, unpack, with_zones, zones_for
from sfumato.redaction.engines.pool import ATTEMPTS, Pool
from sfumato.redaction.engines.worker import Errand, Order, Part, Raised, Reply, Worker, sweep
from sfumato.redaction.plan import Ready, prepare
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.redaction.tree import Item
from sfumato.redaction.videos import redact_video_file
from sfumato.redaction.videos.hands import OwnHands, in_order
from sfumato.redaction.videos.looking import ChunkSights
from sfumato.redaction.videos.survey import survey
from sfumato.redaction.videos.target import target_of
from sfumato.redaction.zones import Zone
from sfumato.vision.detectors import Weights
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def toys(settings: Settings) -> Finder:
    return Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds)


def ready_for(*kinds: Any, **settings: Any) -> Ready:
    return prepare(Settings(**settings), kinds=kinds or ("image",), finder=toys)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SFUMATO_MODELS", str(tmp_path / "models"))  # a worker sets it, in its own process


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(tmp_path / "anna.png")
    return tmp_path / "anna.png"


Employ = Callable[[Ready | bytes], Worker]


@pytest.fixture
def employ() -> Iterator[Employ]:
    """Return a function that begins a worker in this process."""
    with contextlib.ExitStack() as stack:

        def begin(what: Ready | bytes) -> Worker:
            one = Worker(what if isinstance(what, bytes) else pack(what, pickle.dumps))
            stack.callback(one.leave)
            return one

        yield begin


class TestWorker:
    def test_it_makes_what_this_process_makes(self, employ: Employ, picture: Path, tmp_path: Path) -> None:
        ready = ready_for()
        reply = employ(ready).redact(Order("image", "anna.png", ".png"), picture.read_bytes())
        assert isinstance(reply, Reply)
        item = Item(picture, tmp_path / "safe.png", "", "anna.png", "image")
        outcome, seconds = Local(ready, 1).redact(item, item.target, None)
        assert reply.data == item.target.read_bytes()
        assert (reply.outcome, reply.size) == (outcome, len(reply.data))
        assert reply.seconds > 0 < seconds

    def test_large_files_go_both_ways_in_pieces(
        self, employ: Employ, picture: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "BLOCK", 100)
        one = employ(ready_for())
        order, data = Order("image", "anna.png", ".png"), picture.read_bytes()
        assert len(data) > 100
        for at in range(0, len(data), 100):
            one.receive("anna.png", data[at : at + 100], at == 0)
        reply = one.redact(order)
        assert isinstance(reply, Reply)
        assert reply.data is None
        pieces = b"".join(one.fetch(at) for at in range(0, reply.size, 100))
        whole = employ(ready_for())
        monkeypatch.setattr(workers, "BLOCK", 1 << 20)
        again = whole.redact(order, data)
        assert isinstance(again, Reply)
        assert pieces == again.data

    def test_nothing_of_a_file_stays_when_it_is_done(
        self, employ: Employ, picture: Path, tmp_path: Path
    ) -> None:
        one = employ(ready_for())
        one.redact(Order("image", "anna.png", ".png"), picture.read_bytes())
        assert list((tmp_path).glob(f"{workers.PREFIX}*/arrivals/*")) == []
        one.leave()
        assert list((tmp_path).glob(f"{workers.PREFIX}*")) == []

    def test_an_error_comes_back_as_it_is(self, employ: Employ, picture: Path) -> None:
        reply = employ(ready_for()).redact(Order("image", "anna.png", ".png"), picture.read_bytes()[:90])
        assert isinstance(reply, Raised)
        assert isinstance(reply.error, UnreadableMedia)
        assert str(reply.error).startswith("anna.png")

    def test_an_error_that_cannot_be_pickled_is_told(self) -> None:
        class Odd(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} and {two}")

        assert str(Raised.of(Odd(1, 2)).error) == "Odd: 1 and 2"
        assert type(Raised.of(OSError(28, "full")).error) is OSError

    def test_other_software_is_refused(self, employ: Employ, monkeypatch: pytest.MonkeyPatch) -> None:
        data = pack(ready_for(), pickle.dumps)
        monkeypatch.setattr(parcel, "software", lambda: {"sfumato": "0.0.1"})
        problem = employ(data).ready()
        assert isinstance(problem, Raised)
        assert isinstance(problem.error, InvalidRequest)
        assert "sfumato 0.0.1" in str(problem.error)

    def test_another_model_is_refused(self, employ: Employ) -> None:
        ready = ready_for()
        finder = ready.jobs["image"].finder
        finder.weights = {"toy": Weights("toy", "0" * 64, "MIT")}
        problem = employ(ready).ready()
        assert isinstance(problem, Raised)
        assert "the run has toy 000000000000" in str(problem.error)
        assert employ(ready_for()).ready() is None  # the control

    def test_a_file_is_seen_by_size_and_time(self, employ: Employ, picture: Path) -> None:
        one, found = employ(ready_for()), picture.stat()
        assert one.sees(picture, found.st_size, found.st_mtime_ns)
        assert not one.sees(picture, found.st_size, found.st_mtime_ns + 1)
        assert not one.sees(picture.with_name("none"), found.st_size, found.st_mtime_ns)

    def test_what_dead_workers_left_is_swept(self, employ: Employ, tmp_path: Path) -> None:
        living = employ(ready_for())
        dead = tmp_path / f"{workers.PREFIX}dead"
        dead.mkdir()
        (dead / "secret.jpg").write_bytes(b"x")
        (dead / "lock").write_bytes(b"")
        sweep(tmp_path, workers.PREFIX)
        assert not dead.exists()
        assert len(list(tmp_path.glob(f"{workers.PREFIX}*"))) == 1
        living.leave()


class TestParcel:
    def test_given_weights_travel_by_their_contents(
        self, testdata: Callable[[str], Path], tmp_path: Path
    ) -> None:
        model = tmp_path / "mine" / "faces.onnx"
        model.parent.mkdir()
        model.write_bytes(testdata("models/yunet_n_640.onnx").read_bytes())
        ready = prepare(Settings(models={"yunet": model}, detectors=("yunet",)))
        data = pack(ready, pickle.dumps)
        model.unlink()  # another machine
        assert str(tmp_path / "mine").encode() not in data.replace(b"faces.onnx", b"")[-2000:]
        jobs = build(unpack(data, tmp_path))
        assert jobs["image"].finder.weights == ready.jobs["image"].finder.weights

    def test_a_zone_for_some_files_is_for_them_under_any_name(self, tmp_path: Path) -> None:
        corner = Zone("corner", ((0, 0), (1, 0), (1, 1)), files="cam1/*.jpg")
        whole = Zone("all", ((0, 0), (1, 0), (1, 1)))
        ready = ready_for(zones=(corner, whole))
        job = ready.jobs["image"]
        for folder, names in (("cam1", {"corner", "all"}), ("cam2", {"all"})):
            item = Item(tmp_path / folder / "a.jpg", tmp_path / "a", "", "a", "image")
            there = with_zones(job, zones_for(item, job.settings))
            assert {zone.name for zone in there.settings.zones if zone.is_for(Path("/x/b.jpg"))} == names
        assert zones_for(item, replace(job.settings, zones=(whole,))) is None

    def test_a_cover_that_draws_charged_noise_stays_here(self) -> None:
        ready = ready_for()
        noisy = SimpleNamespace(name="noisy", secure=False, charged=lambda *_: None)
        jobs = {"image": replace(ready.jobs["image"], cover=noisy)}
        with pytest.raises(InvalidRequest, match="draws charged noise"):
            pack(replace(ready, jobs=jobs), pickle.dumps)

    def test_dp_pixelate_is_such_a_cover(self) -> None:
        ready = ready_for()
        jobs = {"image": replace(ready.jobs["image"], cover=COVERS.build("dp-pixelate", pixels=16))}
        with pytest.raises(InvalidRequest, match="draws charged noise"):
            pack(replace(ready, jobs=jobs), pickle.dumps)

    def test_what_cannot_be_pickled_is_refused(self) -> None:
        ready = prepare(Settings(), finder=lambda settings: toys(settings))
        with pytest.raises(InvalidRequest, match="must be picklable"):
            pack(ready, pickle.dumps)


class Died(Exception):
    """A worker ended."""


@dataclass
class FakeRay:
    """Workers in this process, which end when they are told to."""

    live: Callable[[int], bool] = lambda number: True
    killed: list[int] = field(default_factory=list)
    made: int = 0

    class exceptions:  # noqa: N801
        RayError = Died
        RayTaskError = type("RayTaskError", (Died,), {})

    def put(self, value: Any) -> Any:
        return value

    def get(self, value: Any, timeout: float | None = None) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    def wait(self, asked: list[Any], num_returns: int, timeout: float) -> Any:
        came = [one for one in asked if one is not LATE]
        return came, [one for one in asked if one is LATE]

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.number)

    def remote(self, **options: Any) -> Callable[[type], Any]:
        return lambda cls: SimpleNamespace(remote=self._make)

    def _make(self, data: Any, base: Any) -> Any:
        self.made += 1
        number = self.made
        good = self.live(number)
        answer = Answer() if good else Died("no")
        gone = SimpleNamespace(remote=lambda: None)
        return SimpleNamespace(number=number, ready=SimpleNamespace(remote=lambda: answer), leave=gone)


class Answer:
    """Stands for `None` from a worker: hashable, and each another."""


LATE = object()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    monkeypatch.setattr(FakeRay, "get", lambda self, value, timeout=None: _given(value))
    return FakeRay()


def _given(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return None if isinstance(value, Answer) else value


class TestPool:
    def test_work_goes_on_with_another_worker(self, fake: FakeRay) -> None:
        notes: list[str] = []
        pool = Pool(fake, b"", 2, notes.append)
        calls: list[int] = []

        def work(actor: Any) -> str:
            calls.append(actor.number)
            if len(calls) == 1:
                raise Died
            return "done"

        assert pool.run("a.jpg", work) == "done"
        assert len(calls) == 2
        assert calls[0] in fake.killed  # it may only be out of reach, and must not go on
        assert pool.size == 2
        assert len(notes) == 1

    def test_what_ends_every_worker_fails(self, fake: FakeRay) -> None:
        pool = Pool(fake, b"", 2, lambda text: None)
        calls = []

        def work(actor: Any) -> None:
            calls.append(actor)
            raise Died

        with pytest.raises(MediaError, match=rf"a.jpg: {ATTEMPTS} workers ended"):
            pool.run("a.jpg", work)
        assert len(calls) == ATTEMPTS
        assert pool.run("b.jpg", lambda actor: 7) == 7

    def test_an_error_of_the_work_costs_no_worker(self, fake: FakeRay) -> None:
        pool = Pool(fake, b"", 1, lambda text: None)
        with pytest.raises(MediaError, match="torn"):
            pool.run("a.jpg", _raise)
        assert fake.killed == []
        assert pool.run("b.jpg", lambda actor: 7) == 7

    def test_without_workers_nobody_waits_for_ever(self, fake: FakeRay) -> None:
        fake.live = lambda number: number == 1
        pool = Pool(fake, b"", 1, lambda text: None)
        with pytest.raises(MediaError, match="no worker of the cluster is left"):
            pool.run("a.jpg", lambda actor: _given(Died()))

    def test_a_worker_that_cannot_begin_refuses_the_run(self, fake: FakeRay) -> None:
        fake.live = lambda number: False
        with pytest.raises(InvalidRequest, match="ended at once"):
            Pool(fake, b"", 2, lambda text: None)
        assert sorted(fake.killed) == []  # they have ended by themselves

    def test_after_the_end_nothing_is_begun(self, fake: FakeRay) -> None:
        pool = Pool(fake, b"", 2, lambda text: None)
        pool.close()
        assert sorted(fake.killed) == [1, 2]
        with pytest.raises(MediaError, match="stopped"):
            pool.run("a.jpg", lambda actor: None)


def _raise(actor: Any) -> None:
    raise MediaError("torn")


class TestChoice:
    def test_an_unknown_engine(self) -> None:
        with (
            pytest.raises(UnknownName, match="did you mean 'ray'"),
            engine_for("rey", ready_for(), 1),
        ):
            pass

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"workers": 0}, "at least 1"),
            ({"address": "auto"}, "the engine is 'local'"),
        ],
    )
    def test_what_makes_no_sense(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidRequest, match=words), engine_for("local", ready_for(), 1, **options):
            pass

    def test_sealing_stays_where_the_keys_are(self) -> None:
        sealing = replace(ready_for(), room=SimpleNamespace())
        with pytest.raises(InvalidRequest, match="cannot seal originals"), engine_for("ray", sealing, 1):
            pass

    def test_a_client_address(self) -> None:
        pytest.importorskip("ray", reason="the engine 'ray' needs Ray: pip install 'sfumato[ray]'")
        with (
            pytest.raises(InvalidRequest, match="address of a Ray client"),
            engine_for("ray", ready_for(), 1, address="ray://10.0.0.1:10001"),
        ):
            pass

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:many", "127.0.0.1:99999"])
    def test_an_address_where_nobody_listens(self, address: str) -> None:
        pytest.importorskip("ray", reason="the engine 'ray' needs Ray: pip install 'sfumato[ray]'")
        with (
            pytest.raises(InvalidRequest, match="no Ray cluster answers at"),
            engine_for("ray", ready_for(), 1, address=address),
        ):
            pass

    def test_without_ray_the_extra_is_named(self, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else find(name))
        with pytest.raises(MissingExtra, match=r"sfumato\[ray\]"):
            run_files(
                picture, picture.with_name("safe.png"), Settings(),
                options=Options(engine="ray"), finder=toys,
            )  # fmt: skip
        assert not picture.with_name("safe.png").exists()

    def test_local_workers_have_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sfumato.redaction.engines.local.cores", lambda: 64)
        monkeypatch.setattr("sfumato.redaction.engines.local.free_memory", lambda: 3 << 30)
        assert Local(ready_for(), 100).slots == 6
        assert Local(ready_for(), 4).slots == 4
        assert Local(ready_for(), 100, workers=9).slots == 9
        monkeypatch.setattr("sfumato.redaction.engines.local.free_memory", lambda: None)
        assert Local(ready_for(), 100).slots == 64

    def test_free_memory_is_known_on_linux(self) -> None:
        free = free_memory()
        assert free is None or free > 1 << 20


class TestChunks:
    def test_order_is_kept_and_little_is_done_ahead(self) -> None:
        begun: queue.Queue[int] = queue.Queue()

        def work(number: int) -> int:
            begun.put(number)
            return number

        results = in_order(20, work, 2)
        assert next(results) == 0
        assert begun.qsize() <= 4
        assert list(results) == list(range(1, 20))

    def test_a_video_by_chunks_is_the_same_whoever_works(
        self, clip: Callable[..., Path], tmp_path: Path
    ) -> None:
        source = clip("walk.mp4", frames=620, options={"crf": "30", "preset": "ultrafast", "g": "50"})
        ready = ready_for("video")
        job = ready.jobs["video"]
        told: list[int] = []
        bytes_of = []
        for at_once in (1, 2):
            target = tmp_path / f"{at_once}.mp4"
            redact_video_file(
                source, target, job, lambda done, total: told.append(done), OwnHands(job, at_once)
            )
            bytes_of.append(Output.of(target).sha256)
        assert len(set(bytes_of)) == 1
        assert max(told) == 1240

    def test_a_worker_looks_at_a_video_that_was_sent_to_it(
        self, employ: Employ, clip: Callable[..., Path]
    ) -> None:
        source = clip("walk.mp4", frames=12)
        one = employ(ready_for("video"))
        data = source.read_bytes()
        errand = Errand("a", "walk.mp4", len(data))
        one.keep(errand, data[:50], True)
        assert not one.has(errand)
        one.keep(errand, data[50:], False)
        assert one.has(errand)
        assert not one.has(replace(errand, key="b"))
        cut = survey(source, target_of(Path("a.mp4")), Settings())
        part = one.look(errand, cut, 0)
        assert isinstance(part, Part)
        assert isinstance(part.result, ChunkSights)
        assert len(part.result.times) == 12
