"""A Ray cluster: one that is joined, or one of this run's own on this machine, closed to others."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.redaction.engines.worker import claimed, sweep
from sfumato.redaction.interrupts import held
from sfumato.redaction.tree import shown
from sfumato.vision.onnx import cores

#: Shared memory for each worker of a cluster of our own: what is sent to it, and what it sends back.
STORE_EACH, STORE_LEAST = 64 << 20, 256 << 20
PREFIX = "sfumato-ray-"
#: Seconds that the head of a cluster may take to take a connection.
KNOCK = 10.0
#: A socket's path may have 107 bytes, of which Ray takes this many below its folder.
SOCKET, RAYS_SHARE = 107, 75


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None) -> Iterator[tuple[Any, int, Path | None]]:
    """Yield Ray, connected, how many workers it has cores for, and its folder where it is of our own.

    A cluster that was joined is left as it is.

    Args:
        address: of the cluster to join; None: that in RAY_ADDRESS, else one is started here.
        workers: cores of the cluster that is started; None: all of this machine.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidRequest: no cluster answers there, or none could be started.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("the engine 'ray'", ["ray"], "ray")
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and "://" in address:
        raise InvalidRequest(
            f"{shown(address)} is the address of a Ray client: run this on a machine of the cluster, with "
            "--ray-address auto, or give the address of its head, HOST:PORT"
        )
    if address is not None and ":" in address:
        _knock(address)
    with _started(address, workers) as (ray, folder):
        yield ray, int(ray.cluster_resources().get("CPU", 0)), folder


@contextlib.contextmanager
def _started(address: str | None, workers: int | None) -> Iterator[tuple[Any, Path | None]]:
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():  # the program's own connection
        yield sys.modules["ray"], None
        return
    with contextlib.ExitStack() as stack:
        folder: Path | None = None
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            count = workers or cores()
            folder = stack.enter_context(_private_folder())
            options |= {
                "num_cpus": count,
                "include_dashboard": False,
                "object_store_memory": max(STORE_LEAST, STORE_EACH * count),
                "_temp_dir": str(folder / "ray"),
            }
            _close_to_others()
        else:
            options["address"] = address
        import ray

        try:
            with _own_handlers():
                ray.init(**options)
        except (RuntimeError, ValueError, AssertionError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            what = "could not be started" if address is None else f"does not answer at {shown(address)}"
            way = (
                "is there memory, and room in /dev/shm?" if address is None else "is it running? `ray status`"
            )
            raise InvalidRequest(f"the Ray cluster {what}; {way} ({reason})") from error
        stack.callback(_ended, ray)
        _quiet()
        yield ray, folder


def _knock(address: str) -> None:
    """Refuse an address that nobody listens at: Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"no Ray cluster answers at {shown(address)} ({error}): give HOST:PORT of its head, or auto on "
            "one of its machines; is it running? `ray status`"
        ) from error


def _ended(ray: Any) -> None:
    with held():
        ray.shutdown()


def _close_to_others() -> None:
    """Let a cluster that is started here be used by this process alone, and tell nobody of it.

    Ray listens on every network, and whoever reaches it can run code: a token that only the processes of this
    run know keeps them out. Ray reads these settings when it is loaded, and hands them to what it starts.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = SYSTEM.bytes(32).hex()


def _quiet() -> None:
    """Keep Ray's remarks on ended workers off standard output, which may be JSON; the run tells of them."""
    worker = sys.modules.get("ray._private.worker")
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False  # type: ignore[union-attr]


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Yield a folder for Ray and workers, removed afterwards: originals may lie there on their way."""
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) + len(PREFIX) + 10 + RAYS_SHARE > SOCKET:
        base = Path("/tmp")
    sweep(base, PREFIX)
    outer, file = claimed(base, PREFIX)  # Ray opens its own folder to everybody
    with file:
        try:
            yield outer
        finally:
            with held():
                shutil.rmtree(outer, ignore_errors=True)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep the handler of SIGTERM that is there: Ray puts its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
