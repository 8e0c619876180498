"""Options of `sfumato train --detector` as settings."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest, UnknownName

if TYPE_CHECKING:
    from sfumato.training.detect.settings import DetectorTraining
    from sfumato.training.detect.train import TrainedDetector
    from sfumato.training.plan import PlannedRun

OUT = Path("private.pt")
#: Settings that options of their own give, or that are no single value.
ELSEWHERE = ("detector", "data", "out", "privacy", "epsilon", "datasets", "augment", "gains")


def asked_for(options: dict[str, Any]) -> DetectorTraining:
    """Return what the options ask for.

    Args:
        options: detector, data, epsilon, out, and `settings` as KEY=VALUE each.

    Raises:
        InvalidRequest, UnknownName: a setting that there is not, or a value that it does not take.
    """
    from sfumato.training.detect.settings import DetectorTraining
    from sfumato.training.settings import TrainingSettings

    known = {kind: _known(kind) for kind in (TrainingSettings, DetectorTraining)}
    given: dict[type, dict[str, Any]] = {kind: {} for kind in known}
    for setting in options["settings"]:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise InvalidRequest(f"a setting is KEY=VALUE, got {setting!r}")
        kind = next((kind for kind, names in known.items() if key in names), None)
        if kind is None:
            raise UnknownName("setting", key, [name for names in known.values() for name in names])
        given[kind][key] = _value(key, value, known[kind][key].default)
    privacy = TrainingSettings(epsilon=options["epsilon"], **given[TrainingSettings])
    return DetectorTraining(
        detector=options["detector"],
        data=options["data"],
        out=options["out"] or OUT,
        privacy=privacy,
        **given[DetectorTraining],
    )


def told(result: TrainedDetector, planned: PlannedRun) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "status": "done",
        "exit_code": 0,
        "model": result.weights.name,
        "onnx": result.onnx.name if result.onnx is not None else None,
        "epsilon": float(planned.price),
        "delta": float(planned.delta),
        "noise_multiplier": float(planned.noise_multiplier),
        "guarantee": result.receipt.body["guarantee"],
        "recorded": result.receipt.recorded,
    }


def _known(kind: Any) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(kind) if one.name not in ELSEWHERE and one.default is not MISSING}


def _value(key: str, value: str, default: Any) -> Any:
    """Read a value as what the default is: a path where that is None."""
    if default is None:
        return Path(value)
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise InvalidRequest(f"{key} is true or false, got {value!r}")
        return value == "true"
    if key in ("delta", "noise_multiplier", "rate", "expected_batch", "epochs"):
        return value  # exact amounts, spelled
    try:
        if isinstance(default, int) or (key == "freeze" and value.isdigit()):
            return int(value)
        return float(value) if isinstance(default, float) else value
    except ValueError:
        what = "whole number" if isinstance(default, int) else "number"
        raise InvalidRequest(f"{key} is a {what}, got {value!r}") from None
