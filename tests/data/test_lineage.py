"""Whose budget it is, whatever becomes of the data: no sequence of steps frees a version of its people."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.data.catalogue import Catalogue
from sfumato.data.lineage import copy, derive, merge, populations_of, view
from sfumato.data.store import Place
from sfumato.data.version import Facts, Item, Version

NAMES = ("a", "b", "c")
POPULATIONS = ("patients", "staff", "")


def enter(catalogue: Catalogue, dataset: str, population: str, mark: int) -> Version:
    """Add as the door does: the next version of a name, with its people and those before."""
    older = catalogue.versions(dataset)[-1:] if dataset in catalogue.names() else ()
    inherited = {name for one in older for name in populations_of(catalogue, one)} | {population}
    facts = Facts(
        reader="csv", unit="who", population=population, populations=tuple(sorted(inherited - {""}))
    )
    with catalogue.claim(dataset) as label:
        items = [
            Item(f"{mark}-{n}", f"{mark:032x}{n:032x}", 1, Place(dataset, label, f"{mark}-{n}"), 1)
            for n in (0, 1)
        ]
        return catalogue.add(dataset, label, items, facts, older)


step = st.tuples(
    st.sampled_from(("add", "copy", "view", "merge", "rename")),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(NAMES),
    st.sampled_from(POPULATIONS),
)


def walk(steps, populations=populations_of) -> None:
    """Carry out steps, and check every version against the people that its bytes came from."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Catalogue(Path(folder))
        people: dict[str, set[str]] = {}  # stored bytes -> whose they are, followed without any lineage
        made: list[Version] = []
        for mark, (what, first, second, name, population) in enumerate(steps):
            if what == "add" or not made:
                version = enter(catalogue, name, population, mark)
                for item in version.items:
                    people[item.name] = {population} - {""}
            else:
                one, other = made[first % len(made)], made[second % len(made)]
                if what in ("copy", "rename"):
                    version = copy(catalogue, one, name)
                    if what == "rename" and catalogue.retired(one) is None:
                        catalogue.retire(one, "renamed")
                elif what == "view":
                    version = view(catalogue, one, name, [one.items[0].path])
                else:
                    version = merge(catalogue, [one, other], name) if one != other else one
            made.append(version)
            found = set(populations(catalogue, version))
            assert set().union(*(people[item.name] for item in version.items)) <= found
            for parent in version.parents:
                assert set(populations(catalogue, catalogue.by_hash(parent))) <= found
            assert found == set(version.facts.populations)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=2, max_size=10))
def test_no_step_frees_a_version_of_its_people(steps) -> None:
    walk(steps)


def test_a_rule_that_reads_the_version_alone_is_caught() -> None:
    def forgetful(catalogue: Catalogue, version: Version) -> tuple[str, ...]:
        return (version.facts.population,) if version.facts.population else ()

    steps = [("add", 0, 0, "a", "patients"), ("copy", 0, 0, "b", "")]
    with pytest.raises(AssertionError):
        walk(steps, forgetful)


def test_a_name_that_had_people_keeps_them(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    enter(catalogue, "a", "patients", 1)
    assert enter(catalogue, "a", "", 2).facts.populations == ("patients",)
    free = enter(catalogue, "b", "", 3)
    assert copy(catalogue, free, "a").facts.populations == ("patients",)


def test_a_merge_keeps_all_items_apart(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    one = enter(catalogue, "a", "patients", 1)
    other = enter(catalogue, "b", "staff", 1)
    both = merge(catalogue, [one, other], "c")
    assert both.facts.populations == ("patients", "staff")
    assert len({item.path for item in both.items}) == 4
    assert {item.home for item in both.items} == {item.home for item in (*one.items, *other.items)}
    assert both.facts.rows == 4


def test_what_cannot_be_derived(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    one = enter(catalogue, "a", "patients", 1)
    with pytest.raises(InvalidRequest, match="holds no 'x'"):
        view(catalogue, one, "b", ["x"])
    with pytest.raises(InvalidRequest, match="at least one parent"):
        derive(catalogue, "b", [], [], how="copy")


def test_different_units_and_purposes_do_not_merge(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)

    def make(name: str, **facts) -> Version:
        with catalogue.claim(name) as label:
            return catalogue.add(name, label, [], Facts(**{"reader": "csv", "unit": "who"} | facts), [])

    one, other = make("a", purposes=("care",)), make("b", purposes=("research",))
    with pytest.raises(InvalidRequest, match="different purposes"):
        merge(catalogue, [one, other], "c")
    with pytest.raises(InvalidRequest, match="privacy units"):
        merge(catalogue, [one, make("d", unit="car")], "c")
    assert merge(catalogue, [one, make("e")], "c").facts.purposes == ("care",)


def test_a_missing_ancestor_is_found(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    one = enter(catalogue, "a", "patients", 1)
    child = copy(catalogue, one, "b")
    (tmp_path / "a" / "1.json").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        populations_of(catalogue, child)
