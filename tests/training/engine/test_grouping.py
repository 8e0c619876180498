"""Images to units and back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.training.engine.grouping import grouping_of  # noqa: E402


@pytest.mark.parametrize(
    ("units", "block"),
    [
        (None, 1),
        ([0, 1, 2, 3], 1),
        ([5, 5, 9, 9], 2),
        ([9, 9, 5, 5], 0),
        ([0, 1, 0, 1], 0),
        ([1, 2, 2, 2], 0),
    ],
)
def test_rows_are_added_up_by_unit_in_ascending_order(units: list[int] | None, block: int) -> None:
    given = None if units is None else torch.tensor(units)
    grouping = grouping_of(4, given, 1)
    assert grouping.block == block
    rows = torch.arange(8.0).view(4, 2)
    whose = list(range(4)) if units is None else units
    expected = [sum(rows[i] for i in range(4) if whose[i] == unit) for unit in sorted(set(whose))]
    assert torch.equal(grouping.gather(rows), torch.stack(expected))
    values = torch.arange(float(grouping.units))
    assert torch.equal(
        grouping.spread(values), torch.tensor([float(sorted(set(whose)).index(u)) for u in whose])
    )
    parts = [part.gather(rows[images]) for images, part in grouping.chunks(1)]
    assert torch.equal(torch.cat(parts), torch.stack(expected))


def test_views_are_blocks() -> None:
    grouping = grouping_of(6, None, 3)
    assert (grouping.units, grouping.block) == (2, 3)
    assert torch.equal(grouping.of_image(torch.device("cpu")), torch.tensor([0, 0, 0, 1, 1, 1]))
