"""Two processes on one run: the same law, and with a seed the same weights, as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")
if not torch.distributed.is_available():
    pytest.skip(
        "this build of PyTorch has no torch.distributed: several machines cannot train together with it",
        allow_module_level=True,
    )

HERE = Path(__file__).parent


def train(folder: Path, size: int) -> list[list[torch.Tensor]]:
    folder.mkdir()
    env = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "support"), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    outs = [folder / f"w{rank}.pt" for rank in range(size)]
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                HERE / "team_worker.py",
                str(rank),
                str(size),
                folder / "store",
                folder / "p",
                out,
            ],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.mark.slow
def test_two_ranks_end_where_one_does(tmp_path: Path) -> None:
    (alone,) = train(tmp_path / "one", 1)
    first, second = train(tmp_path / "two", 2)
    for one, two, three in zip(alone, first, second, strict=True):
        assert torch.equal(two, three)
        assert torch.allclose(one, two, atol=1e-4)  # cells of the grid; the noise of a step is 0.04
