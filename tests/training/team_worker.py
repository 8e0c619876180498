"""One rank of a run over several processes: team_worker.py RANK SIZE STORE ROOT OUT."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from private_runs import ASKED, LOSS, data, model, project_at, sgd

import sfumato.training as training
from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import InvalidRequest


def main() -> None:
    """Train on a rank, and write the weights that it ends with."""
    rank, size, store, root, out = int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:6])
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    net = model(rank)  # only rank 0's weights count
    keys = [index // 2 for index in range(200)]
    asked = ASKED | {"physical_batch": 8, "steps": 6}
    if rank == 0:
        with project_at(root, "person").training(**asked, entropy=SeededEntropy(11)) as run:
            loop(net, keys, run)
            assert not list(
                training.private(net, LOSS, optimizer=sgd(net), run=run).batches(data(), units=keys)
            )
    else:
        loop(net, keys, None)
        for _ in training.private(net, LOSS, optimizer=sgd(net), run=None).batches(data(), units=keys):
            raise AssertionError("no step is left")
        with contextlib.suppress(InvalidRequest):
            training.private(net, LOSS, optimizer=sgd(net), run="anything")  # type: ignore[arg-type]
            raise AssertionError("the run is rank 0's alone")
    torch.save([value.detach() for value in net.parameters()], out)
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


def loop(net: torch.nn.Module, keys: list[int], run: training.TrainingRun | None) -> None:
    """Take all steps."""
    private = training.private(net, LOSS, optimizer=sgd(net), run=run, ema=0.9)
    for batch in private.batches(data(), units=keys):
        private.step(batch)


if __name__ == "__main__":
    main()
