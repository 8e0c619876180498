"""From noisy numbers to answers: every aggregate, by group, against the exact figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy import DRAWS, LAWS, covered, draw, scale_of

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries import notes, quantiles
from sfumato.queries.answer import Answer, Cost
from sfumato.queries.bounded import Measure
from sfumato.queries.finish import Finishing, Noisy, check, finish, product
from sfumato.queries.measures import distinct, needs, sensitivity
from sfumato.queries.model import Aggregate, Column, Key, Order, Query, Terms

V = Column("speed")
BOUNDS = (Fraction(0), Fraction(130))
COUNT, UNITS = Aggregate("count", "n"), Aggregate("units", "cars")
SUM, MEAN = Aggregate("sum", "total", V), Aggregate("mean", "mean", V)
VAR, DEV = Aggregate("variance", "var", V), Aggregate("stddev", "dev", V)
MEDIAN = Aggregate("quantile", "median", V, quantile=Fraction(1, 2))
EVERY = (COUNT, UNITS, SUM, MEAN, VAR, DEV, MEDIAN)
JUNCTIONS, HOURS = ("A", "B", "C"), tuple(range(4))
KEYS = (Key("junction", Column("junction"), JUNCTIONS), Key("hour", Column("hour"), HOURS))


def data(rows: Sequence[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [np.rint(np.clip(rng.normal(60, 20, count), 0, 130)).astype(int) for count in rows]


def exact(measure: Measure, cells: list[np.ndarray]) -> np.ndarray:
    """Return a measure of whole-number speeds, one row for each unit."""
    if measure.kind == "bins":
        count = measure.of.count  # type: ignore[union-attr]
        return np.array([np.bincount(one, minlength=count) for one in cells])
    power = {"rows": 0, "units": 0, "sum": 1, "squares": 2}[measure.kind]
    return np.array([((one - measure.centre) ** power).sum() for one in cells])


def totals(values: np.ndarray, query: Query) -> list[np.ndarray]:
    """Return the numbers of every level of a rollup, from all keys to none."""
    if not query.rollup:
        return [values]
    sizes = [len(item.values or ()) for item in query.keys]
    return [
        values.reshape(int(np.prod(sizes[:level])), -1, *values.shape[1:]).sum(1)
        for level in range(len(sizes), -1, -1)
    ]


def ask(
    query: Query,
    cells: list[np.ndarray],
    *,
    law: str = "laplace",
    spread: float = 8.0,
    seed: int = 0,
    terms: Terms | None = None,
    wrong: float = 1.0,
    keys: Any = None,
) -> Answer:
    """Answer a query with noise whose deviation is `spread` times what one row can change."""
    rng = np.random.default_rng(seed)
    needed = tuple(needs(one, BOUNDS, whole=True) for one in query.aggregates)
    noisy = []
    for measure in distinct(needed):
        size = spread * sensitivity(measure, 1, 1).linf
        said, real = scale_of(law, size), scale_of(law, size * wrong)
        arrays = [
            array + draw(law, real, array.shape, rng)
            for level in totals(exact(measure, cells), query)
            for array in (quantiles.tree_sums(level) if measure.kind == "bins" else [level])
        ]
        noisy.append(Noisy(measure, law, (said,) * len(arrays), tuple(arrays)))  # type: ignore[arg-type]
    known = Finishing(
        needed=needed,
        terms=terms or Terms(),
        bounds={one.name: BOUNDS for one in query.aggregates},
        whole=("total", "median"),
    )
    return finish(query, query.keys if keys is None else keys, noisy, known)


def flow(*aggregates: Aggregate, **more: Any) -> Query:
    return Query(table="flow", aggregates=aggregates, **{"keys": KEYS, **more})


ROWS = [400, 900, 2500, 5000] * 3


def truth(kind: str, values: np.ndarray) -> float:
    return {
        "count": lambda: len(values),
        "units": lambda: len(values),
        "sum": lambda: values.sum(),
        "mean": lambda: values.mean(),
        "variance": lambda: values.var(),
        "stddev": lambda: values.std(),
        "quantile": lambda: np.sort(values)[-(-len(values) // 2) - 1],
    }[kind]()


@pytest.mark.parametrize("law", LAWS)
def test_every_aggregate_is_near_its_exact_figure(law: str) -> None:
    cells = data(ROWS)
    answer = ask(flow(*EVERY), cells, law=law)
    assert len(answer) == 12
    for row, values in zip(answer, cells, strict=True):
        for one in EVERY:
            if row[one.name] is not None:
                assert abs(row[one.name] - truth(one.kind, values)) <= 6 * row[f"{one.name}_error"] + 1
                assert row[f"{one.name}_low"] <= row[one.name] <= row[f"{one.name}_high"]
    assert answer.table.column("n").null_count == 0
    assert answer.table.column("mean").null_count == 0


CELL = flow(*EVERY, keys=(Key("draw", Column("draw"), tuple(range(DRAWS))),))


@pytest.mark.parametrize("law", LAWS)
def test_intervals_hold_in_95_percent_and_wrong_ones_do_not(law: str) -> None:
    # 4,000 groups with the same rows are 4,000 draws.
    values = data([3000])[0]
    right, wrong = (ask(CELL, [values] * DRAWS, law=law, spread=40.0, wrong=by) for by in (1.0, 1.25))
    for one in EVERY:
        ends = [
            [got.table.column(f"{one.name}_{end}").to_numpy() for end in ("low", "high")]
            for got in (right, wrong)
        ]
        exactly = truth(one.kind, values)
        holds = covered(*ends[0], exactly)
        if one.kind == "quantile":
            assert holds >= 0.945, "bins are coarse: more than 95 %"
        else:
            assert 0.94 <= holds <= 0.96, one.kind
            assert covered(*ends[1], exactly) < 0.93, one.kind
        figure, error = (right.table.column(name).to_numpy() for name in (one.name, f"{one.name}_error"))
        if one.kind in ("count", "units", "sum"):
            assert abs(figure.mean() - exactly) < 4 * figure.std() / DRAWS**0.5, "unbiased"
            assert error[0] == pytest.approx(figure.std(), rel=0.05)


@pytest.mark.parametrize("law", LAWS)
def test_the_interval_of_a_count_is_that_of_the_law(law: str) -> None:
    # Small noise is far from continuous: the widths are whole numbers of the exact law.
    scale = Fraction(3, 2)
    values = draw(law, scale, 200_000, np.random.default_rng(3)) + 50
    noisy = [Noisy(Measure("rows"), law, (scale,), (values,))]  # type: ignore[arg-type]
    query = replace(CELL, aggregates=(COUNT,))
    answer = finish(
        query, pa.table({"draw": np.arange(len(values))}), noisy, Finishing(needed=(needs(COUNT),))
    )
    low, high = (answer.table.column(f"n_{end}").to_numpy() for end in ("low", "high"))
    assert covered(low, high, 50) >= 0.95
    assert covered(low + 1, high - 1, 50) < 0.95, "one less would not do"


# Post-processing


def test_counts_below_nought_are_shown_as_nought_where_that_was_asked() -> None:
    cells = data([0] * 12)
    raw, cut = (ask(flow(COUNT, SUM), cells, terms=Terms(non_negative=cut)) for cut in (False, True))
    assert min(row["n"] for row in raw) < 0
    for row, other in zip(raw, cut, strict=True):
        assert other["n"] == max(0, row["n"])
        assert other["n_low"] == max(0, row["n_low"])
        assert other["n_high"] >= other["n"]
        assert other["total"] >= 0
    assert [note for note in cut.notes if note.startswith("n, total: what noise took below 0")]
    assert not [note for note in raw.notes if "below 0" in note]


def test_sums_that_may_be_negative_stay_so() -> None:
    measure = Measure("sum", V, None, -5, 5)
    query = replace(flow(SUM), keys=())
    noisy = [Noisy(measure, "laplace", (Fraction(2),), (np.array([-40]),))]
    known = Finishing(needed=((measure,),), terms=Terms(non_negative=True))
    (row,) = finish(query, (), noisy, known)
    assert row["total"] == -40.0


@pytest.mark.parametrize("integers", [True, False])
def test_whole_numbers_are_told_as_such(integers: bool) -> None:
    answer = ask(flow(*EVERY), data(ROWS), terms=Terms(integers=integers))
    kinds = {name: answer.table.schema.field(name).type for name in answer.table.column_names}
    for name in ("n", "cars", "total", "median"):
        for end in ("", "_low", "_high"):
            assert kinds[name + end] == (pa.int64() if integers else pa.float64())
    assert kinds["mean"] == kinds["n_error"] == pa.float64()


# Rollups


@pytest.mark.parametrize("terms", [Terms(), Terms(non_negative=True), Terms(integers=False)])
def test_totals_come_after_their_parts_and_add_up(terms: Terms) -> None:
    answer = ask(flow(COUNT, SUM, MEAN, UNITS, rollup=True), data([30, 5, 0, 900] * 3), terms=terms)
    rows = list(answer)
    assert [(row["junction"], row["hour"]) for row in rows] == [
        *((name, hour) for name in JUNCTIONS for hour in (*HOURS, None)),
        (None, None),
    ]
    for name in ("n", "total"):
        leaves = {
            j: sum(row[name] for row in rows if row["junction"] == j and row["hour"] is not None)
            for j in JUNCTIONS
        }
        for row in rows:
            if row["junction"] is not None and row["hour"] is None:
                assert row[name] == pytest.approx(leaves[row["junction"]])
        assert rows[-1][name] == pytest.approx(sum(leaves.values()))
        if terms.non_negative:
            assert min(row[name] for row in rows) >= 0
    assert any("made to add up" in note for note in answer.notes)
    assert any(note.startswith("cars: one may be in several groups") for note in answer.notes)


def test_consistent_totals_have_less_error_and_hold() -> None:
    cells = data([300, 50, 100, 900] * 3)
    found: dict[bool, list[Answer]] = {
        consistent: [
            ask(flow(COUNT, MEAN, rollup=True), cells, terms=Terms(consistent=consistent), seed=seed)
            for seed in range(300)
        ]
        for consistent in (True, False)
    }
    for name, exactly in (("n", 1350), ("mean", np.concatenate(cells[:4]).mean())):
        at = 4  # the total of junction A
        errors = {
            way: np.std([answer.table.column(name)[at].as_py() for answer in answers])
            for way, answers in found.items()
        }
        assert errors[True] < errors[False]
        ends = [
            np.array([a.table.column(f"{name}_{end}")[at].as_py() for a in found[True]])
            for end in ("low", "high")
        ]
        assert 0.91 <= covered(ends[0], ends[1], exactly) <= 0.985
        assert found[True][0].table.column(f"{name}_error")[at].as_py() == pytest.approx(
            errors[True], rel=0.15
        )
    assert found[False][0].table.column("n")[4].as_py() != sum(
        found[False][0].table.column("n")[at].as_py() for at in range(4)
    )


def test_a_rollup_without_all_combinations_is_refused() -> None:
    keys = pa.table({"junction": ["A", "A", "B"], "hour": [0, 1, 0]})
    with pytest.raises(InvalidRequest, match="all 4 combinations"):
        ask(flow(COUNT, rollup=True), data([9] * 12), keys=keys)


# Having, order, limit


def test_having_order_and_limit_work_on_noisy_figures() -> None:
    cells = data(ROWS)
    every = ask(flow(COUNT, MEAN), cells)
    some = ask(
        flow(
            COUNT, MEAN, having=(("n", ">=", 850.0), ("mean", "<>", 0.0)), order=(Order("n", True),), limit=5
        ),
        cells,
    )
    wanted = sorted((row for row in every if row["n"] >= 850), key=lambda row: -row["n"])[:5]
    assert list(some) == wanted
    assert some.notes[-1].startswith("rows were chosen by noisy figures")
    assert not any("chosen" in note for note in every.notes)


def test_order_by_several_columns_puts_what_is_missing_last() -> None:
    cells = data([0, 900, 0, 2500] * 3)
    answer = ask(flow(COUNT, MEAN, order=(Order("junction", True), Order("mean"))), cells)
    rows = list(answer)
    assert [row["junction"] for row in rows] == ["C"] * 4 + ["B"] * 4 + ["A"] * 4
    for start in (0, 4, 8):
        means = [row["mean"] for row in rows[start : start + 4]]
        assert means[2:] == [None, None]
        assert means[0] < means[1]
    assert len(ask(flow(COUNT, MEAN, having=(("mean", ">", -1.0),)), cells)) == 6
    assert any("mean: missing where rows are too few" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"having": (("m", ">", 1.0),)}, UnknownName, "figure in HAVING 'm'"),
        ({"having": (("n", "~", 1.0),)}, UnknownName, "comparison '~'"),
        ({"order": (Order("speed"),)}, UnknownName, "column in ORDER BY 'speed'"),
        ({"limit": 0}, InvalidRequest, "LIMIT must be 1"),
        ({"keys": (Key("n_low", V, (1,)),)}, InvalidRequest, "called 'n_low'"),
    ],
)
def test_what_cannot_be_finished_is_refused_beforehand(more: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        check(flow(COUNT, **more))


# Groups, and what is handed in


def test_groups_chosen_privately_are_rows_as_they_come() -> None:
    keys = pa.table({"junction": ["Ω", "A"], "hour": [3, 1]})
    answer = ask(flow(COUNT), data([50, 70]), keys=keys)
    assert [(row["junction"], row["hour"]) for row in answer] == [("Ω", 3), ("A", 1)]


def test_without_keys_there_is_one_row() -> None:
    answer = ask(replace(flow(*EVERY), keys=()), data([4000]))
    assert len(answer) == 1
    assert answer.keys == ()


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_public_keys_make_all_combinations(sizes: list[int]) -> None:
    keys = [Key(f"k{at}", V, tuple(range(size))) for at, size in enumerate(sizes)]
    rows = [tuple(row.values()) for row in product(keys).to_pylist()]
    assert rows == sorted(set(rows))
    assert len(rows) == np.prod(sizes)


def test_noisy_numbers_of_another_shape_are_refused() -> None:
    known = Finishing(needed=(needs(COUNT),))
    for noisy in ([], [Noisy(Measure("rows"), "laplace", (Fraction(1),), (np.zeros(3, np.int64),))]):
        with pytest.raises(InvalidRequest, match=r"must have the shapes \[\(12,\)\]"):
            finish(flow(COUNT), KEYS, noisy, known)


def test_cost_guarantee_and_remarks_stand_in_the_answer() -> None:
    noisy = [Noisy(Measure("rows"), "laplace", (Fraction(1),), (np.arange(12),))]
    cost = Cost(Fraction(1, 2), population="drivers")
    answer = finish(
        flow(COUNT),
        KEYS,
        noisy,
        Finishing(needed=(needs(COUNT),)),
        cost=cost,
        guarantee="private",
        remarks=["hm"],
    )
    assert (answer.cost, answer.guarantee, answer.notes) == (cost, "private", ("hm",))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), law=st.sampled_from(LAWS), rollup=st.booleans())
def test_every_answer_comes_back_and_never_holds_nan(seed: int, law: str, rollup: bool) -> None:
    rng = np.random.default_rng(seed)
    cells = data(rng.integers(0, 300, 12).tolist())
    terms = Terms(non_negative=bool(seed % 2), integers=bool(seed % 3))
    answer = ask(
        flow(*EVERY, rollup=rollup),
        cells,
        law=law,
        spread=float(rng.uniform(0.1, 90)),
        terms=terms,
        seed=seed,
    )
    for row in answer:
        for name in answer.figures:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert low <= high
            assert row[name] is None or low <= row[name] <= high
    assert Answer.from_json(answer.to_json()) == answer


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    law=st.sampled_from(LAWS),
    power=st.floats(-9, 11.7),
    most=st.sampled_from([0, 3, 10**6, 2**62 - 1]),
    rollup=st.booleans(),
    non_negative=st.booleans(),
    integers=st.booleans(),
)
def test_no_noise_and_no_number_makes_it_fail(
    seed: int, law: str, power: float, most: int, rollup: bool, non_negative: bool, integers: bool
) -> None:
    # It runs after the charge: what fails here has been paid for.
    rng = np.random.default_rng(seed)
    query = flow(*EVERY, rollup=rollup)
    needed = tuple(needs(one, BOUNDS, whole=True) for one in EVERY)
    scale = Fraction(10**power) ** (2 if law == "gaussian" else 1)
    noisy = []
    for measure in distinct(needed):
        sizes = [12, 3, 1] if rollup else [12]
        nodes = quantiles.levels(measure.of.count) if measure.kind == "bins" else [0]  # type: ignore[union-attr]
        shapes = [(size, node) if node else (size,) for size in sizes for node in nodes]
        arrays = tuple(rng.integers(-most, most, shape, endpoint=True) for shape in shapes)
        noisy.append(Noisy(measure, law, (scale,) * len(arrays), arrays))  # type: ignore[arg-type]
    known = Finishing(
        needed=needed,
        terms=Terms(non_negative=non_negative, integers=integers),
        bounds={one.name: BOUNDS for one in EVERY},
        whole=("total", "median"),
    )
    answer = finish(query, KEYS, noisy, known)
    assert Answer.from_json(answer.to_json()) == answer
    assert str(answer)


def test_readers_learn_which_groups_are_left_out() -> None:
    said = notes.few_units("laplace", Fraction(5), 76, "vehicle")
    assert "one with 87 (unit: vehicle) is shown in 95 % of draws" in said
    assert "above 76 are too large" in said
