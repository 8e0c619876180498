"""Private queries: answers about the crowd, not the person.

    questions = project.questions("traffic-planning")
    answer = questions.run("SELECT junction, COUNT(*) FROM flow GROUP BY junction", epsilon=0.5)
    answer.to_pandas()

Names are imported when they are first used: what they need comes with the extra `queries`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sfumato.queries.answer import Answer
    from sfumato.queries.api import Questions
    from sfumato.queries.explain import Explanation
    from sfumato.queries.model import Query, Terms
    from sfumato.queries.plan import Planned

__all__ = ["Answer", "Explanation", "Planned", "Query", "Questions", "Terms"]

_HOMES = {
    "Answer": "answer",
    "Explanation": "explain",
    "Planned": "plan",
    "Query": "model",
    "Questions": "api",
    "Terms": "model",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
