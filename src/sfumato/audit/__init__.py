"""Audits: attacks on what was claimed to be private; lower bounds, never proofs.

from sfumato.audit import Claim, Subject, audit
report = audit(Subject(Claim.of(noise_multiplier=..., rate=..., steps=..., delta=...), step=my_step))
report.require()      # raises AuditFailed where the claim is contradicted
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato.audit.report import Report
    from sfumato.audit.run import Settings, audit
    from sfumato.audit.subject import Claim, Subject

__all__ = ["Claim", "Report", "Settings", "Subject", "audit"]

_HOMES = {"Claim": "subject", "Subject": "subject", "Report": "report", "Settings": "run", "audit": "run"}


def __getattr__(name: str) -> Any:
    """Import a name from its file on first use: listing attacks must not load an audit."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
