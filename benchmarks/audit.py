"""The audit: what it shows of correct code and of broken code, and how long it takes.

For claims of epsilon 1, 2, 4 and 8 (delta 1e-5, 292 Poisson steps at rate 0.137) a small DP-SGD is audited
with 5,000 canaries, as it should be and with five faults. "canaries" means that the lower bound alone passed
the claim; "direct" that a direct test broke. A bound above the claim on correct code would be a false alarm.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

from _bench import arguments, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from dpsgd import FAULTS, Mechanism, priced

from sfumato.audit import Claim, Report, Subject, audit

RATE, STEPS, DELTA, CANARIES = 0.137, 292, 1e-5, 5000


def one(epsilon: int, sigma: float, fault: str, seed: int) -> tuple[Report, float]:
    mechanism = Mechanism(sigma, RATE, CANARIES, seed, fault)
    begun = time.perf_counter()
    claim = Claim.of(noise_multiplier=sigma, rate=RATE, steps=STEPS, delta=DELTA)
    found = audit(
        Subject(claim, mechanism.step, mechanism.contribution, sample=mechanism.sample, units=mechanism.units)
    )
    return found, time.perf_counter() - begun


def training_loop(sigma: float) -> tuple[Report, float]:
    """Audit the training room's own loop, if PyTorch is here."""
    from sfumato.training.audited import Rehearsal
    from sfumato.training.settings import TrainingSettings

    begun = time.perf_counter()
    settings = TrainingSettings(noise_multiplier=sigma, rate=RATE, public_size=2000, steps=STEPS, delta=DELTA)
    code = Rehearsal(settings, canaries=CANARIES)
    claim = Claim.of(noise_multiplier=sigma, rate=RATE, steps=STEPS, delta=DELTA)
    subject = Subject(claim, code.step, code.contribution, CANARIES, sample=code.sample, units=code.units)
    return audit(subject), time.perf_counter() - begun


def main() -> None:
    options = arguments(__doc__ or "")
    runs = 2 if options.quick else 20
    result: dict[str, object] = {}
    lines = [f"{'claim':>5} {'code':<22} {'lower bound':>18} {'ceiling':>8}  found by"]
    slowest, slowest_loop, alarms, found, planted = 0.0, 0.0, 0, 0, 0
    for epsilon in (1, 2, 4, 8):
        sigma = priced(epsilon, DELTA, RATE, STEPS)
        if importlib.util.find_spec("torch") is not None:
            real, seconds = training_loop(sigma)
            alarms += not real.ok
            slowest_loop = max(slowest_loop, seconds)
            result[f"training_loop_bound_at_{epsilon}"] = real.epsilon
            lines.append(
                f"{epsilon:>5} {'the training loop':<22} {real.epsilon:>18.2f} {real.ceiling:>8.2f}  "
                f"{'nothing' if real.ok else real.reasons}"
            )
        for fault in FAULTS:
            reports = []
            for seed in range(runs if not fault else max(1, runs // 4)):
                one_report, seconds = one(epsilon, sigma, fault, seed)
                reports.append(one_report)
                slowest = max(slowest, seconds)
            bounds = sorted(item.epsilon for item in reports)
            by = [
                word
                for word, holds in (
                    ("canaries", all(item.epsilon > item.claim.epsilon for item in reports)),
                    ("direct", all(any(f.broken for f in item.findings) for item in reports)),
                )
                if holds
            ]
            if fault:
                planted, found = planted + 1, found + all(not item.ok for item in reports)
            else:
                alarms += sum(not item.ok for item in reports)
                result[f"bound_at_{epsilon}"] = bounds[len(bounds) // 2]
                result[f"largest_bound_at_{epsilon}"] = bounds[-1]
            spread = f"{bounds[0]:.2f} .. {bounds[-1]:.2f}"
            lines.append(
                f"{epsilon:>5} {fault or 'correct':<22} {spread:>18} {reports[0].ceiling:>8.2f}  "
                f"{', '.join(by) or ('-' if fault else 'nothing')}"
            )
    result |= {"faults": planted, "faults_found": found, "false_alarms": alarms, "slowest_seconds": slowest}
    if slowest_loop:
        result["training_loop_slowest_seconds"] = slowest_loop
    report(result, lines, options.json)


if __name__ == "__main__":
    main()
