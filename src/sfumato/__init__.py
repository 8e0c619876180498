"""Sfumato: use the picture, not the person.

>>> import sfumato
>>> sfumato.redact("street.jpg").save("safe.jpg")  # doctest: +SKIP

Names are imported when they are first used, so that `import sfumato` costs next to nothing.
"""

from sfumato._version import __version__

TYPE_CHECKING = False  # type checkers take it for true; from typing it would cost more than all else
if TYPE_CHECKING:
    from sfumato import queries, training
    from sfumato.core import errors
    from sfumato.core.gate import Gate, Plan
    from sfumato.core.ledger import Ledger
    from sfumato.core.policy import Policy
    from sfumato.core.project import Project
    from sfumato.core.receipt import Receipt
    from sfumato.redaction.api import Redacted, Redactor, redact
    from sfumato.redaction.run import redact_files
    from sfumato.redaction.settings import Settings
    from sfumato.vision.boxes import Boxes

__all__ = [
    "Boxes",
    "Gate",
    "Ledger",
    "Plan",
    "Policy",
    "Project",
    "Receipt",
    "Redacted",
    "Redactor",
    "Settings",
    "__version__",
    "errors",
    "queries",
    "redact",
    "redact_files",
    "training",
]

_HOMES = {
    "Boxes": "sfumato.vision.boxes",
    "Gate": "sfumato.core.gate",
    "Ledger": "sfumato.core.ledger",
    "Plan": "sfumato.core.gate",
    "Policy": "sfumato.core.policy",
    "Project": "sfumato.core.project",
    "Receipt": "sfumato.core.receipt",
    "Redacted": "sfumato.redaction.api",
    "Redactor": "sfumato.redaction.api",
    "Settings": "sfumato.redaction.settings",
    "errors": "sfumato.core.errors",
    "queries": "sfumato.queries",
    "redact": "sfumato.redaction.api",
    "redact_files": "sfumato.redaction.run",
    "training": "sfumato.training",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        home = importlib.import_module(_HOMES[name])
        value = home if name in ("errors", "queries", "training") else getattr(home, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
