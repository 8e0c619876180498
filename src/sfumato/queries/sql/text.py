"""The text of a question: its limits, its syntax tree, and where in it something stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser
from sqlglot.tokenizer_core import Token, TokenType

from sfumato.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST: Final = 10_000
#: The parser calls itself some twenty times per level, and Python allows a thousand calls.
DEEPEST: Final = 25

_FORM: Final = "write SELECT ..., COUNT(*) FROM ... WHERE ... GROUP BY ..."
_OPENING = {TokenType.L_PAREN, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.END}
_PREFIXES = {TokenType.NOT, TokenType.DASH, TokenType.PLUS}
#: What no form that is understood contains.
_NEVER = {
    TokenType.L_BRACKET: "lists are not understood; write x IN (1, 2)",
    TokenType.L_BRACE: "structures are not understood; ask for single columns",
    TokenType.ARROW: "functions of your own are not understood; ask for expressions of columns",
    TokenType.PLACEHOLDER: "there is nothing to fill in for a placeholder; write the value",
    TokenType.PARAMETER: "parameters are not understood; write the value",
}


class _EndlessError(Exception):
    """The parser tries the same text again and again."""


class _Steady(DuckDBParser):
    """A parser whose work is bounded: where a word may be a type, it tries twice, at each level anew."""

    _left = 0

    def bounded(self, tokens: list[Token], sql: str) -> list[exp.Expr | None]:
        self._left = 1_000 + 60 * len(tokens)
        return self.parse(tokens, sql)

    def _advance(self, times: int = 1) -> None:
        self._left -= 1
        if self._left < 0:
            raise _EndlessError
        super()._advance(times)


@dataclass(frozen=True, slots=True)
class Text:
    """What is read.

    Args:
        before: how much of it stands before what was written.
    """

    sql: str
    before: int = 0

    def refuse(self, node: exp.Expr | int | None, what: str) -> InvalidRequest:
        """Return the refusal of a node, with its place."""
        start = node if isinstance(node, int) else self.start(node)
        if start is None:
            return InvalidRequest(what)
        if self.before:
            own = self.sql[self.before :]
            own = own if len(own) <= 80 else own[:77] + "..."
            return InvalidRequest(f"in {own!r}, column {max(start - self.before, 0) + 1}: {what}")
        line = self.sql.count("\n", 0, start) + 1
        column = start - (self.sql.rfind("\n", 0, start) + 1) + 1
        return InvalidRequest(f"line {line}, column {column}: {what}")

    def start(self, node: exp.Expr | None) -> int | None:
        """Return where a node begins: its own place, that of what is in it, or that of what it is in."""
        above = node
        while above is not None:
            own = self._own(above)
            places = (
                [own]
                if own is not None
                else [at for inner in above.walk() if (at := _meta(inner)) is not None]
            )
            if places:
                return min(places)
            above = above.parent
        return None

    def _own(self, node: exp.Expr) -> int | None:
        """Return where a function begins; of some, the parser keeps but the place of their argument."""
        if not isinstance(node, exp.Func) or _meta(node) is not None:
            return _meta(node)
        first = next((at for inner in node.walk() if (at := _meta(inner)) is not None), None)
        called = re.search(r"\b\w+\s*\(\s*$", self.sql[:first]) if first is not None else None
        return called.start() if called else None

    def word(self, node: exp.Expr) -> str:
        """Return the name of a function as it was written, in capitals."""
        start = self._own(node)
        found = re.compile(r"\w+").match(self.sql, start) if start is not None else None
        name = (
            node.name
            if isinstance(node, exp.Anonymous)
            else node.sql_name()
            if isinstance(node, exp.Func)
            else ""
        )
        return (found.group() if found else name or type(node).__name__).upper()


def _meta(node: exp.Expr) -> int | None:
    start = node.meta.get("start")
    return start if isinstance(start, int) else None


def read(sql: str) -> tuple[Text, exp.Expr]:
    """Return the one statement of a text as a tree.

    Raises:
        InvalidRequest: where it is too long, too deep, no SQL, or several statements.
    """
    return _read(Text(_writable(sql, "question")))


def read_expression(sql: str) -> tuple[Text, exp.Expr]:
    """Return one expression as a tree.

    Raises:
        InvalidRequest: as for `read`.
    """
    text, tree = _read(Text("SELECT " + _writable(sql, "expression"), len("SELECT ")))
    chosen = tree.expressions
    if (
        len(chosen) != 1
        or not isinstance(tree, exp.Select)
        or any(tree.args[k] for k in tree.args if k != "expressions")
    ):
        raise text.refuse(text.before, "this is more than one expression; write one, as in speed > 50")
    return text, chosen[0]


def _read(text: Text) -> tuple[Text, exp.Expr]:
    try:
        tokens = sqlglot.tokenize(text.sql, dialect="duckdb")
    except (SqlglotError, ValueError, IndexError, RecursionError):
        raise text.refuse(None, "this is no SQL: a quote or a comment is not closed, perhaps") from None
    tokens = _versions(tokens)
    _within(text, tokens)
    try:
        parsed = _Steady(dialect="duckdb").bounded(tokens, text.sql)
    except (RecursionError, _EndlessError):
        raise text.refuse(None, "the question is nested too deeply; ask it in parts") from None
    except SqlglotError as wrong:
        raise _syntax(text, wrong) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # what the parser does not foresee
        raise text.refuse(None, f"this cannot be read as SQL; {_FORM}") from None
    trees = [tree for tree in parsed if tree is not None]
    if len(trees) != 1:
        raise text.refuse(None, f"there are {len(trees)} statements; ask one question at a time")
    return text, trees[0]


def _writable(sql: str, what: str) -> str:
    if not isinstance(sql, str) or not sql.strip():
        raise InvalidRequest(f"there is no {what}; {_FORM}")
    if len(sql) > LONGEST:
        raise InvalidRequest(f"the {what} has {len(sql)} characters; at most {LONGEST} are read")
    for place, letter in enumerate(sql):
        if letter == "\x00" or "\ud800" <= letter <= "\udfff":
            raise Text(sql).refuse(place, f"the character {letter!r} is no text; leave it out")
    return sql


def _versions(tokens: list[Token]) -> list[Token]:
    """Join name, @ and version into one name where nothing is between them: flow@3."""
    joined: list[Token] = []
    at = 0
    while at < len(tokens):
        three = tokens[at : at + 3]
        touching = (
            len(three) == 3 and three[0].end + 1 == three[1].start and three[1].end + 1 == three[2].start
        )
        if touching and three[1].token_type == TokenType.PARAMETER and three[0].token_type == TokenType.VAR:
            end = at + 3
            while (
                end < len(tokens)
                and tokens[end].start == tokens[end - 1].end + 1
                and tokens[end].text.isalnum()
            ):
                end += 1
            name = "".join(token.text for token in tokens[at:end])
            first = tokens[at]
            joined.append(
                Token(TokenType.IDENTIFIER, name, first.line, first.col, first.start, tokens[end - 1].end)
            )
            at = end
        else:
            joined.append(tokens[at])
            at += 1
    return joined


def _within(text: Text, tokens: Iterable[Token]) -> None:
    tokens = list(tokens)
    if not tokens:
        raise InvalidRequest(f"there is no question; {_FORM}")
    first = tokens[0]
    if first.token_type not in (TokenType.SELECT, TokenType.WITH, TokenType.FROM, TokenType.L_PAREN):
        word = first.text.upper()[:30]
        raise text.refuse(
            first.start, f"{word} is not understood: questions alone can be asked; write SELECT ... FROM ..."
        )
    depth = prefixes = 0
    last = None
    for token in tokens:
        if last is TokenType.SEMICOLON and token.token_type is not last:
            raise text.refuse(token.start, "there is more than one statement; ask one question at a time")
        last = token.token_type
        if token.token_type in _NEVER:
            raise text.refuse(token.start, _NEVER[token.token_type])
        prefixes = prefixes + 1 if token.token_type in _PREFIXES else 0
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        if depth + prefixes > DEEPEST:
            raise text.refuse(
                token.start, f"the question is nested more than {DEEPEST} deep; ask it in parts"
            )


def _syntax(text: Text, wrong: SqlglotError) -> InvalidRequest:
    first = (getattr(wrong, "errors", None) or [{}])[0]
    near = str(first.get("highlight") or "")
    start = None
    if isinstance(first.get("line"), int) and isinstance(first.get("col"), int):
        lines = text.sql.split("\n")[: first["line"] - 1]
        start = sum(len(line) + 1 for line in lines) + max(first["col"] - len(near), 0)
    what = f"{near[:30]!r} cannot stand here" if near else "this cannot be read as SQL"
    if str(first.get("description") or "").startswith(("Required argument", "Required keyword")):
        return text.refuse(start, "an argument is missing; write the function in full, as in FLOOR(x / 10)")
    return text.refuse(start, f"{what}; {_FORM}")
