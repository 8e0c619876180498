"""What Ibis cannot say the same on every engine: a few functions of ours, written out by sqlglot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

#: name of the function -> engine -> its SQL.
#: digest: of a text, the first 60 bits of its MD5. div: of whole numbers, the second above 0, towards zero.
#: wide: 38 digits. int: 64 bits. place: of a text in a list.
WRITTEN: dict[str, dict[str, str]] = {
    "sfumato_digest": {
        "duckdb": "CAST('0x' || SUBSTRING(MD5({0}), 1, 15) AS BIGINT)",
        "postgres": "CAST(CAST('x' || SUBSTRING(MD5({0}) FROM 1 FOR 15) AS BIT(60)) AS BIGINT)",
        "spark": "CAST(CONV(SUBSTRING(MD5({0}), 1, 15), 16, 10) AS BIGINT)",
    },
    "sfumato_div": {
        "duckdb": "({0}) // ({1})",
        "postgres": "DIV({0}, {1})",
        "spark": "({0}) DIV ({1})",
    },
    "sfumato_wide_div": {
        "duckdb": "({0}) // ({1})",
        "postgres": "DIV({0}, {1})",
        "spark": "(({0}) - ({0}) % ({1})) / ({1})",
    },
    "sfumato_wide": {
        "duckdb": "CAST({0} AS HUGEINT)",
        "postgres": "CAST({0} AS NUMERIC(38, 0))",
        "spark": "CAST({0} AS DECIMAL(38, 0))",
    },
    "sfumato_place": {"duckdb": "CAST(ENUM_CODE(TRY_CAST({0} AS ENUM({1}))) AS BIGINT)"},
    "sfumato_int": dict.fromkeys(("duckdb", "postgres", "spark"), "CAST({0} AS BIGINT)"),
    "sfumato_long": dict.fromkeys(("duckdb", "postgres", "spark"), "CAST({0} AS BIGINT)"),
}


@cache
def functions() -> Mapping[str, Callable[..., Any]]:
    """Return our functions, and DuckDB's `min` of several, as Ibis functions by name."""
    import ibis

    wide = "decimal(38, 0)"

    def scalar(name: str, returns: str, *takes: str) -> Callable[..., Any]:
        made: Callable[..., Any] = ibis.udf.scalar.builtin(
            _stub(len(takes)), name=f"sfumato_{name}", signature=(takes, returns)
        )
        return made

    return {
        "digest": scalar("digest", "int64", "string"),
        "div": scalar("div", "int64", "int64", "int64"),
        "wide_div": scalar("wide_div", wide, "decimal", "decimal"),
        "wide": scalar("wide", wide, "int64"),
        "int": scalar("int", "int64", "decimal"),
        "long": scalar("long", "int64", "int64"),
        "place": scalar("place", "int64", "string", "array<string>"),
        "smallest": ibis.udf.agg.builtin(
            _stub(2), name="min", signature=(("int64", "int64"), "array<int64>")
        ),
        "largest": ibis.udf.scalar.builtin(_stub(1), name="list_max", signature=(("array<int64>",), "int64")),
    }


def long(value: int) -> Any:
    """Return a whole number of 64 bits.

    Engines take a bare 3 for one of 32 bits, and fail where a row's arithmetic goes beyond them: a failure
    that tells of that row.
    """
    import ibis

    return functions()["long"](ibis.literal(value, "int64"))


class Stages:
    """Steps of one query, each with a name, as SQL's WITH has them.

    Ibis would melt one step into the next, and write a column's whole expression wherever it is used.
    """

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}
        self.kept: set[str] = set()
        self.shared: set[str] = set()

    def add(self, expression: Any, *, kept: bool = False, shared: bool = False) -> Any:
        """Take a step; return its table for the next.

        Args:
            kept: PostgreSQL, too, melts steps together, unless it is told to keep one's rows.
            shared: two steps read it, and DuckDB is to work it out once.
        """
        import ibis

        name = f"step{len(self.steps)}"
        self.steps[name] = expression
        if kept:
            self.kept.add(name)
        if shared:
            self.shared.add(name)
        return ibis.table(expression.schema(), name=name)


def _stub(arguments: int) -> Callable[..., Any]:
    return (lambda a: None) if arguments == 1 else (lambda a, b: None)


def written(expression: Any, engine: str, sources: Mapping[str, str], stages: Stages | None = None) -> str:
    """Return the SQL of an Ibis expression for "duckdb", "postgres" or "spark".

    Args:
        sources: SQL of each relation of the engine; stages: the steps before the expression.
    """
    mark = "`" if engine == "spark" else '"'
    stages = stages or Stages()
    before = dict(sources) | {name: _plain(step, engine) for name, step in stages.steps.items()}
    keep = dict.fromkeys(stages.kept if engine == "postgres" else stages.shared, "MATERIALIZED ")
    steps = ", ".join(f"{quoted(name, mark)} AS {keep.get(name, '')}({sql})" for name, sql in before.items())
    text = _plain(expression, engine)
    return f"WITH {steps}, {text[5:]}" if text.startswith("WITH ") else f"WITH {steps} {text}"


def _plain(expression: Any, engine: str) -> str:
    import ibis
    import sqlglot
    from sqlglot import exp

    # Ibis's own compiler for Spark loads its backend, which asks for more packages; this one is made from it.
    dialect = {"spark": "databricks"}.get(engine, engine)

    def ours(node: Any) -> Any:
        if isinstance(node, exp.Anonymous) and (texts := WRITTEN.get(str(node.this).lower())):
            arguments = [
                ", ".join(value.sql(engine) for value in argument.expressions)
                if isinstance(argument, exp.Array)
                else argument.transform(ours).sql(engine)
                for argument in node.expressions
            ]
            return exp.paren(sqlglot.parse_one(texts[engine].format(*arguments), read=engine))
        return node

    tree = sqlglot.parse_one(str(ibis.to_sql(expression, dialect=dialect)), read=engine)
    return str(tree.transform(ours, copy=False).sql(engine))


def quoted(name: str, mark: str = '"') -> str:
    """Return a name, or with "'" a text, as SQL writes it; Spark's names take "`"."""
    return mark + name.replace(mark, mark * 2) + mark
