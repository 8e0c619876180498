"""A small project with a budget, data of two classes, and a model: what tests of training begin with."""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato.core.project import Project

POLICY = """
[project]
name = "test"
[populations.pictures]
unit = "UNIT"
epsilon = 40
delta = 1e-4
[populations.pictures.shares.train]
kind = "sum"
epsilon = 20
delta = 5e-5
[populations.pictures.shares.filter]
epsilon = 20
delta = 5e-5
"""
COUNT = 200


def project_at(root: Path, unit: str = "image") -> Project:
    if not (root / "sfumato.toml").exists():
        Project.init(root).ledger.close()
        (root / "sfumato.toml").write_text(POLICY.replace("UNIT", unit))
    return Project(root)


def data(count: int = COUNT, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 6, generator=generator)
    return images, (images[:, 0] > 0).long()


def model(seed: int = 1) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def sgd(of: torch.nn.Module, rate: float = 0.5) -> torch.optim.SGD:
    return torch.optim.SGD(of.parameters(), lr=rate)


LOSS = torch.nn.CrossEntropyLoss(reduction="none")
ASKED = {
    "noise_multiplier": "1.5",
    "delta": "1e-5",
    "expected_batch": 20,
    "public_size": COUNT,
    "steps": 8,
    "share": "train",
}
