"""Runs a redaction in a process of its own, as a program would; prints what came of it as JSON.

Called with one JSON object: source, target, engine, workers, and `kill`: the number of finished files after
which one worker is killed by its pid. `poison`: pictures of this width kill the worker that looks at them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.redaction.batch import Watch
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.redaction.zones import Zone
from sfumato.vision.finder import Finder
from sfumato.vision.toy import ToyDetector


def worker_pids() -> list[int]:
    """Return the workers of the cluster that this process started."""
    raylets = [pid for pid in _children(os.getpid()) if b"raylet" in _command(pid)]
    return [
        pid for raylet in raylets for pid in _children(raylet) if _command(pid).startswith(b"ray::Worker")
    ]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


class Killer(Watch):
    """Kills a worker once so many files are done; where `frames` is given, once so many frames are."""

    def __init__(self, after: int | None, frames: int | None) -> None:
        self.after, self.at, self.done = after, frames, 0
        self.killed: list[int] = []
        self.strangers: list[bool] = []
        self.watch_door = False
        self.interrupt: int | None = None
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self, item: Any, failure: Any) -> None:
        self.done += 1
        if self.watch_door and not self.strangers:
            import ray

            self.strangers.append(stranger(ray.get_runtime_context().gcs_address))
        if self.done == self.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        if self.after is not None and self.done >= self.after and not self.killed:
            self._kill()

    def frames(self, done: int, total: int | None) -> None:
        if self.at is not None and done >= self.at and not self.killed:
            self._kill()

    def _kill(self) -> None:
        pid = worker_pids()[0]
        os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)


class Deadly(ToyDetector):
    """Ends its process at pictures of some width."""

    def __init__(self, width: int, home: int) -> None:
        super().__init__()
        self.width, self.home = width, home

    def detect(self, image: Any, *, floor: float = 0.0) -> Any:
        if image.shape[1] == self.width and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().detect(image, floor=floor)


def stranger(address: str) -> bool:
    """Say whether another program, which does not know the token, gets into a cluster."""
    code = f"import ray; ray.init({address!r}, log_to_driver=False)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    plain["HOME"] = tempfile.gettempdir()  # a token that others left there is none of this cluster's
    try:
        done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that started us may have ignored it
    wish = json.loads(sys.argv[1])
    settings = Settings(**wish.get("settings", {}))
    if wish.get("zones"):
        settings = replace(settings, zones=tuple(Zone(**zone) for zone in wish["zones"]))
    home = os.getpid()

    def toys(chosen: Settings) -> Finder:
        return Finder([Deadly(wish.get("poison", 0), home)], chosen.hide, thresholds=chosen.thresholds)

    watch = Killer(wish.get("kill"), wish.get("kill_at_frame"))
    watch.watch_door = wish.get("stranger", False)
    watch.interrupt = wish.get("interrupt_after")
    options = Options(
        engine=wish["engine"], workers=wish.get("workers"), report=False, resume=wish.get("resume", False)
    )
    start = time.perf_counter()
    try:
        run = run_files(
            Path(wish["source"]), Path(wish["target"]), settings, options=options, watch=watch,
            finder=None if wish.get("real") else toys,
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        print(json.dumps({"stopped": str(stop)}))
        return
    failures = {one.name: [one.error, one.reason] for one in run.failures}
    print(
        json.dumps(
            {
                "done": run.done,
                "failures": failures,
                "notes": watch.notes,
                "killed": watch.killed,
                "strangers": watch.strangers,
                "seconds": time.perf_counter() - start,
                "detector_seconds": run.detector_seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
