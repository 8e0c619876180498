"""Training with differential privacy: per-image gradients, clipped, noised, charged before they are taken.

    with project.training(epsilon=3, delta="1e-5", expected_batch=512, public_size=60_000, epochs=20) as run:
        private = sfumato.training.private(model, loss, optimizer=optimizer, run=run)
        for batch in private.batches(dataset):
            private.step(batch)
        run.release(model, "model.safetensors")

Names are imported when they are first used: PyTorch comes with the extra `training`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sfumato.training.loop import Private, private
    from sfumato.training.plan import PlannedRun, plan_run
    from sfumato.training.run import Progress, TrainingRun
    from sfumato.training.settings import TrainingSettings

__all__ = ["PlannedRun", "Private", "Progress", "TrainingRun", "TrainingSettings", "plan_run", "private"]

_HOMES = {
    "PlannedRun": "plan",
    "Private": "loop",
    "private": "loop",
    "Progress": "run",
    "TrainingRun": "run",
    "TrainingSettings": "settings",
    "plan_run": "plan",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
