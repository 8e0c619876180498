"""What an audit says: lower bound, the ceiling of so many canaries, and the claim; and whether to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.audit import plot
from sfumato.audit.attacks import Attacked
from sfumato.audit.canaries import Guesses
from sfumato.audit.findings import Finding
from sfumato.audit.subject import Claim
from sfumato.core.errors import AuditFailed
from sfumato.core.files import write_whole

LIMITS = (
    "A lower bound: the true epsilon may be anything above it, and a bound of 0 says nothing.",
    "So many canaries cannot show more than the ceiling, whatever the code does.",
    "What the callables do was audited; that the run called the same code is the caller's word.",
    "One run, one configuration: nothing is said about other settings.",
)


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on epsilon at the claim's delta.

    Args:
        method: how it came about.
        epsilon: the bound; 0.0 says nothing.
        ceiling: what it would have been with every guess right.
        guesses: how many coins were guessed, and rightly.
        p: the chance of so many right guesses under the claim, at most.
    """

    method: str
    epsilon: float
    ceiling: float
    guesses: Guesses
    p: float

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "method": self.method,
            "epsilon": self.epsilon,
            "ceiling": self.ceiling,
            "right": self.guesses.right,
            "guesses": self.guesses.made,
            "p": self.p,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit of a run.

    Args:
        claim: what the run says.
        canaries: how many were used.
        confidence: that all bounds hold.
        bounds: by the canaries, the sharper method first.
        findings: of the direct tests, judged together.
        attacks: on the finished model.
        untested: what could not be looked at, and why.
        seconds: that it took.
    """

    claim: Claim
    canaries: int
    confidence: float
    bounds: tuple[Bound, ...]
    findings: tuple[Finding, ...]
    attacks: tuple[Attacked, ...] = ()
    untested: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def epsilon(self) -> float:
        """The largest lower bound of the canaries."""
        return max(bound.epsilon for bound in self.bounds)

    @property
    def ceiling(self) -> float:
        """The largest bound that so many canaries could have shown."""
        return max(bound.ceiling for bound in self.bounds)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the model must not be released; empty: nothing was found."""
        claim = self.claim.epsilon
        return (
            *(
                f"{bound.method}: epsilon is at least {bound.epsilon:.3g}, claimed {claim:.3g}"
                for bound in self.bounds
                if bound.epsilon > claim
            ),
            *(f"{one.test}: {one.said}" for one in self.findings if one.broken),
            *(
                f"attack {one.attack}: epsilon is at least {one.epsilon:.3g}, claimed {claim:.3g}"
                for one in self.attacks
                if one.epsilon > claim and not one.assumes
            ),
        )

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the claim."""
        return not self.reasons

    def require(self) -> Report:
        """Return the report itself where nothing speaks against the claim.

        Raises:
            AuditFailed: something does; the model must not be released.
        """
        if not self.ok:
            raise AuditFailed(
                f"the audit contradicts the claim of epsilon {self.claim.epsilon:.3g} at delta "
                f"{self.claim.delta:g}, so the model is not released: {'; '.join(self.reasons)}. Find the "
                "fault before another run; what was charged stays charged",
                self.reasons,
            )
        return self

    def guarantee(self) -> dict[str, Any]:
        """Return the guarantee for a receipt: of type `tested`."""
        return {
            "type": "tested",
            "statement": (
                f"audited in one run with {self.canaries} gradient canaries: epsilon at least "
                f"{self.epsilon:.3g} with confidence {self.confidence:g}, claimed {self.claim.epsilon:.3g} "
                f"at delta {self.claim.delta:g} per {self.claim.unit}; so many canaries can show "
                f"{self.ceiling:.3g} at most; {len(self.findings)} direct tests"
            ),
            "limits": [*LIMITS, *(f"Not tested: {item}." for item in self.untested)],
        }

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "ok": self.ok,
            "reasons": list(self.reasons),
            "claim": self.claim.to_data(),
            "canaries": self.canaries,
            "confidence": self.confidence,
            "epsilon_lower": self.epsilon,
            "ceiling": self.ceiling,
            "bounds": [bound.to_data() for bound in self.bounds],
            "findings": [finding.to_data() for finding in self.findings],
            "attacks": [attack.to_data() for attack in self.attacks],
            "guarantee": self.guarantee(),
            "seconds": round(self.seconds, 2),
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        claim = self.claim
        yield (
            f"Claim:       epsilon {claim.epsilon:.3g} at delta {claim.delta:g} per {claim.unit} "
            f"(noise {claim.noise_multiplier:.4g}, rate {claim.rate:.4g}, {claim.steps} steps)"
        )
        yield f"Lower bound: epsilon {self.epsilon:.3g}, confidence {self.confidence:.0%}"
        yield f"Ceiling:     epsilon {self.ceiling:.3g}, the most that {self.canaries} canaries can show"
        for bound in self.bounds:
            yield (
                f"  {bound.method}: {bound.epsilon:.3g} of {bound.ceiling:.3g}; "
                f"{bound.guesses.right} of {bound.guesses.made} right; p {bound.p:.2g} under the claim"
            )
        for attack in self.attacks:
            yield (
                f"  attack {attack.attack}: AUC {attack.auc:.3f}, epsilon at least {attack.epsilon:.3g}"
                + (f", if {attack.assumes}" if attack.assumes else "")
            )
        yield "Direct tests:"
        for finding in self.findings:
            mark = "BROKEN" if finding.broken else "ok    "
            yield f"  {mark} {finding.test}: {finding.said} (p {finding.p:.2g})"
        for item in self.untested:
            yield f"  not tested: {item}"
        if self.ok:
            yield "Verdict: nothing speaks against the claim. Tested, not proven."
        else:
            yield f"Verdict: DO NOT RELEASE: {'; '.join(self.reasons)}."

    def svg(self) -> str:
        """Return a picture: lower bound, claim and ceiling on one axis, and the direct tests below."""
        return plot.draw(
            self.claim.epsilon,
            [(bound.method, bound.epsilon, bound.ceiling) for bound in self.bounds],
            [(finding.test, finding.p, finding.broken) for finding in self.findings],
        )

    def write_svg(self, path: Path) -> None:
        """Write the picture; the file appears whole."""
        write_whole(path, self.svg())
