from __future__ import annotations

import os

import pytest

from sfumato.core.entropy import SYSTEM, SeededEntropy, below
from sfumato.core.errors import InvalidRequest


def _too_uneven(counts: list[int]) -> bool:
    """Chi-square with 4 degrees of freedom above its 1e-6 quantile."""
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 / mean for count in counts) > 33.4


def test_below_favours_nobody() -> None:
    counts = [0] * 5
    for _ in range(20_000):
        counts[below(SYSTEM, 5)] += 1
    assert not _too_uneven(counts)


def test_the_check_finds_the_modulo_bias() -> None:
    counts = [0] * 5
    for value in SYSTEM.bytes(20_000):
        counts[(value & 7) % 5] += 1  # the wrong twin
    assert _too_uneven(counts)


def test_a_seed_repeats_and_is_stamped() -> None:
    one, two = SeededEntropy(1), SeededEntropy(1)
    assert one.bytes(100) == two.bytes(64) + two.bytes(36) or not one.private
    assert SeededEntropy(1).bytes(32) != SeededEntropy(2).bytes(32)
    assert SYSTEM.private
    assert not one.private


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system does not have")
def test_a_fork_does_not_repeat_the_noise() -> None:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, SYSTEM.bytes(32))
        os._exit(0)
    os.wait()
    assert os.read(reader, 32) != SYSTEM.bytes(32)
    os.close(reader)
    os.close(writer)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        below(SYSTEM, 0)
