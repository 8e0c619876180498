"""Several processes on one run (DDP): one of them has the permit, draws who is in, and all of the noise.

Rank 0 samples for everybody and tells the others their part; each clips and sums its own units; the sums
meet at rank 0, which adds the noise once and sends the result round. So the law is that of one process,
whatever the number of ranks, and no key or noise ever leaves rank 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.training.sampling import Sample


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run.

    Args:
        rank: of this one; 0 has the run.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Team:
        """Return the team of `torch.distributed`, or a team of one where it was not set up."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this process has the run."""
        return self.rank == 0

    def tell(self, value: Any) -> Any:
        """Return rank 0's value on every rank; an error that it tells of is raised on all of them."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        if isinstance(value, SfumatoError):
            raise value
        return value

    def part(self, sample: Sample) -> Sample:
        """Return this rank's units of a sample: every size-th."""
        if self.size == 1:
            return sample
        mine = sample.units % self.size == self.rank
        return Sample(sample.images[mine], sample.units[mine] // self.size)

    def gather(self, sums: dict[str, torch.Tensor]) -> None:
        """Add up everybody's sums at rank 0, in place."""
        if self.size > 1:
            for value in sums.values():
                dist.reduce(value, dst=0)

    def share(self, sums: dict[str, torch.Tensor]) -> None:
        """Give rank 0's tensors to everybody, in place."""
        if self.size > 1:
            for value in sums.values():
                dist.broadcast(value, src=0)

    def check_same(self, what: str, value: str) -> None:
        """Refuse where the ranks do not agree on something."""
        if self.size == 1:
            return
        seen: list[Any] = [None] * self.size
        dist.all_gather_object(seen, value)
        if len(set(seen)) != 1:
            raise InvalidRequest(
                f"the processes of this run do not agree on {what}: {sorted(map(str, set(seen)))}"
            )
