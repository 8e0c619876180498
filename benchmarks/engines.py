"""The Ray engine against the local one, on the same pictures and the same cores.

The cluster is started before the clock: what is measured is what building the detectors of workers, sending
and scheduling add. The time of starting it, which a run that joins no cluster pays once, is printed beside.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from _bench import alternate, arguments, medians, report


def pictures(folder: Path, count: int) -> None:
    """Write crops of a photograph, each another."""
    from PIL import Image
    from skimage.data import astronaut

    folder.mkdir()
    photograph = astronaut()
    for index in range(count):
        left, top = index % 10 * 12, index // 10 % 8 * 16
        crop = np.ascontiguousarray(photograph[top : top + 360, left : left + 400])
        Image.fromarray(crop).save(folder / f"{index:03}.jpg", quality=90)


def main() -> None:
    chosen = arguments(__doc__ or "")
    try:
        import ray
    except ImportError:
        report({}, ["skipped: Ray is not installed (pip install 'sfumato[ray]')"], chosen.json)
        return
    from sfumato.redaction.run import Options, run_files
    from sfumato.vision.onnx import cores

    workers = cores()
    with tempfile.TemporaryDirectory(prefix="sb") as base:
        folder = Path(base)
        pictures(folder / "in", 40 if chosen.quick else 200)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        start = time.perf_counter()
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        starting = time.perf_counter() - start

        def run(engine: str) -> None:
            options = Options(engine=engine, workers=workers, overwrite=True, report=False)
            assert not run_files(folder / "in", folder / engine, options=options).failures

        times = alternate(
            {"local": lambda: run("local"), "ray": lambda: run("ray")}, 1 if chosen.quick else 3
        )
        same = all(
            path.read_bytes() == (folder / "ray" / path.name).read_bytes()
            for path in (folder / "local").glob("*.jpg")
        )
        ray.shutdown()
    middle = medians(times)
    result: dict[str, object] = {
        "ray_time_over_local": middle["ray"] / middle["local"],
        "local_seconds": middle["local"],
        "ray_seconds": middle["ray"],
        "ray_start_seconds": starting,
        "same_bytes": same,
    }
    report(result, [f"{workers} workers; their detectors are built within the time of Ray"], chosen.json)


if __name__ == "__main__":
    main()
