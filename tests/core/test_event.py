from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.event import (
    ZCDP,
    ApproxDP,
    Composed,
    Event,
    Gaussian,
    Laplace,
    NoEvent,
    PoissonSampled,
    PureDP,
    Repeated,
)

amounts = st.fractions(min_value=Fraction(1, 1000), max_value=1000)
shares = st.fractions(min_value=0, max_value=1)
leaves = st.one_of(
    st.just(NoEvent()),
    amounts.map(Gaussian),
    amounts.map(Laplace),
    amounts.map(PureDP),
    amounts.map(ZCDP),
    st.builds(ApproxDP, amounts, shares),
)
events = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(PoissonSampled, shares, inner),
        st.builds(Repeated, inner, st.integers(0, 1000)),
        st.lists(inner, max_size=3).map(Composed),
    ),
    max_leaves=4,
)


@given(events)
def test_an_event_survives_json(event: Event) -> None:
    assert Event.from_data(json.loads(json.dumps(event.to_data()))) == event


@pytest.mark.parametrize(
    "make", [lambda: Gaussian(0), lambda: Laplace(0), lambda: PoissonSampled(2, NoEvent())]
)
def test_numbers_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_unknown_kinds_fields_and_endless_nesting_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'gaussian'"):
        Event.from_data({"kind": "gausian"})
    with pytest.raises(InvalidRequest):
        Event.from_data({"kind": "gaussian", "sigma": "1"})
    deep: dict = {"kind": "none"}
    for _ in range(20):
        deep = {"kind": "repeated", "event": deep, "times": 1}
    with pytest.raises(InvalidRequest, match="deep"):
        Event.from_data(deep)
    with pytest.raises(InvalidRequest, match="whole number"):
        Repeated(NoEvent(), -1)
