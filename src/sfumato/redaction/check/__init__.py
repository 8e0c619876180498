"""Checking outputs: an attack on what redaction wrote, by other detectors and in other ways."""

from sfumato.redaction.check.report import Covered, Find, Report
from sfumato.redaction.check.run import Checker, check

__all__ = ["Checker", "Covered", "Find", "Report", "check"]
