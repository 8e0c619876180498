"""What the shell of `sfumato query` completes: words of SQL, tables, columns and public values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sfumato.cli.query_shell import HELP
from sfumato.core.errors import SfumatoError

if TYPE_CHECKING:
    from sfumato.queries.api import Questions

SQL = (
    "SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT COUNT(*) COUNT(DISTINCT SUM( AVG( MEDIAN( VAR_POP( "
    "STDDEV_POP( QUANTILE_CONT( AND OR NOT IN BETWEEN LIKE IS NULL AS DESC ROLLUP JOIN USING ON CASE WHEN "
    "THEN ELSE END CLAMP( HOUR( MONTH( YEAR( ISODOW( DATE_TRUNC( FILTER"
)
#: Public values offered, of each column.
VALUES = 200
_UNDER_THE_CURSOR = re.compile(r"'[^']*\Z|[\w.(*@-]*\Z")


class Words:
    """The words of a project's tables, looked up once, when the first is needed."""

    def __init__(self, questions: Callable[[], Questions]) -> None:
        self._questions = questions

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All words: commands, SQL, tables, columns, and values in quotes."""
        found: dict[str, None] = dict.fromkeys(SQL.split())
        try:
            questions = self._questions()
            names = questions.names()
        except SfumatoError:
            return tuple(found)
        for name in names:
            found[name] = None
            try:
                table = questions.table(name)
            except SfumatoError:  # it may not be asked: its columns are not offered
                continue
            found |= dict.fromkeys(table.kinds)
            for section in table.columns.values():
                values = (section.public_values() or ())[:VALUES]
                found |= dict.fromkeys(f"'{one}'" for one in values if isinstance(one, str))
        return tuple(found)

    def matching(self, before: str) -> Iterator[tuple[str, int]]:
        """Yield words that fit what stands before the cursor, and how many characters they replace."""
        match = _UNDER_THE_CURSOR.search(before)
        typed = match.group() if match else ""
        if before.lstrip().startswith(".") and " " not in before.lstrip():
            yield from ((name.split()[0], len(typed)) for name in HELP if name.startswith(typed.lower()))
            return
        if not typed:
            return
        for word in self.known:
            if word.lower().startswith(typed.lower()) and word != typed:
                yield word, len(typed)

    def completer(self) -> Any:
        """Return this as prompt_toolkit asks it."""
        from prompt_toolkit.completion import Completer, Completion

        words = self

        class _Completer(Completer):
            def get_completions(self, document: Any, event: Any) -> Iterator[Any]:
                for word, length in words.matching(document.text_before_cursor):
                    yield Completion(word, start_position=-length)

        return _Completer()
