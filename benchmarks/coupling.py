"""How many planted couplings between images the probe finds, and how many Opacus lets pass.

Opacus "lets pass" what its validator accepts and its hooks give per-sample gradients for, without an error or
a warning. Install it with `pip install opacus opt_einsum`; without it only our own figure is printed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from pathlib import Path

import torch

from _bench import arguments, report
from sfumato.core.errors import InvalidRequest
from sfumato.training.coupling import probe
from sfumato.training.models import CATALOGUE, build

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from leaks import CLEAN, LEAKS, Leak, batch, entropy, net, planted

#: Told of a mean, Opacus multiplies by the number of images again, so this one is not asked of it.
UNDONE_BY_OPACUS = "loss / images in the batch"


def caught(leak: Leak) -> bool:
    try:
        return not probe(*planted(leak)).clean
    except InvalidRequest:
        return True


def opacus_passes(leak: Leak) -> bool:
    """Whether Opacus takes the model and gives every trainable parameter a per-sample gradient."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    model, losses, given = planted(leak)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torch, about hooks: not about privacy
        warnings.filterwarnings("ignore", message="Full backward hook")
        try:
            if ModuleValidator.validate(model.train(), strict=False):
                return False
            _swap(losses, model, GradSampleModule(model, loss_reduction="sum"))
            losses(given).sum().backward()
        except Exception:  # whatever it is, the user was told
            return False
    trained = [p for p in model.parameters() if p.requires_grad]
    return all(getattr(p, "grad_sample", None) is not None for p in trained)


def _swap(losses: object, model: torch.nn.Module, wrapped: torch.nn.Module) -> None:
    """Let the losses call the wrapped model: they hold it in their closure."""
    for cell in getattr(losses, "__closure__", None) or ():
        if cell.cell_contents is model:
            cell.cell_contents = wrapped


def main() -> None:
    asked = arguments(__doc__ or "")
    torch.manual_seed(0)
    found = {leak.name: caught(leak) for leak in LEAKS}
    lines = [f"missed by the probe: {name}" for name, yes in found.items() if not yes]
    alarms = 0
    for name in CLEAN:
        model = net(CLEAN[name]())
        alarms += not probe(model, entropy(model), batch()).clean
    seconds = {}
    for name in () if asked.quick else CATALOGUE.names:
        channels, size = (1, 28) if name == "mnist-cnn" else (3, 32)
        model = build(name, channels=channels, size=size)
        start = time.perf_counter()
        alarms += not probe(model, entropy(model), batch(4, channels, size)).clean
        seconds[f"probe_seconds_{name.replace('-', '_')}"] = time.perf_counter() - start
    result: dict[str, object] = {
        "planted": len(LEAKS),
        "caught": sum(found.values()),
        "false_alarms": alarms,
        "clean_models": len(CLEAN) + len(seconds),
        **seconds,
    }
    if importlib.util.find_spec("opacus") is not None:
        asked_of_it = [leak for leak in LEAKS if leak.name != UNDONE_BY_OPACUS]
        passed = [leak.name for leak in asked_of_it if opacus_passes(leak)]
        result["asked_of_opacus"] = len(asked_of_it)
        lines += [f"Opacus lets pass: {name}" for name in passed]
        result["opacus_lets_pass"] = len(passed)
    report(result, lines, asked.json)


if __name__ == "__main__":
    main()
