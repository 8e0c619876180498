"""The noise of training: its law, its grid, that it never comes twice, and wrong twins that are found."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sfumato.core.entropy import SYSTEM, Entropy, SeededEntropy
from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.mechanisms import gaussian, keystream
from sfumato.mechanisms.gaussian import GaussianNoise, grid_for

Draws = NDArray[np.float64]
PLAN = Plan(action="train", mechanism="m", guarantee="heuristic", statement="s")


def permit(entropy: Entropy = SYSTEM) -> Permit:
    return Gate(entropy=entropy).open(PLAN)


def noise(seed: int = 3) -> GaussianNoise:
    return GaussianNoise(permit(SeededEntropy(seed)))


def is_normal(draws: Draws, std: float = 1.0) -> bool:
    """By Kolmogorov and Smirnov, by chi-square over 64 cells, and by the deviation; wrong once in 10^5."""
    scaled = draws / std
    cells = np.bincount((stats.norm.cdf(scaled) * 64).astype(int).clip(0, 63), minlength=64)
    spread = (len(draws) - 1) * np.var(scaled, ddof=1)
    return bool(
        stats.kstest(scaled, "norm").pvalue > 1e-5
        and stats.chisquare(cells).pvalue > 1e-5
        and 1e-5 < stats.chi2.cdf(spread, len(draws) - 1) < 1 - 1e-5
    )


def is_independent(first: Draws, second: Draws) -> bool:
    """Whether two draws are uncorrelated, they and their squares."""
    pairs = ((first, second), (first**2, second**2), (np.abs(first), second))
    return all(abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a)) < 5 for a, b in pairs)


def test_it_has_the_normal_law_and_wrong_twins_do_not() -> None:
    draws = noise().standard(250_000)
    assert is_normal(draws)
    assert not is_normal(draws * 0.99)
    assert not is_normal(draws / 2)
    assert not is_normal(draws + 0.02)
    assert not is_normal(np.clip(draws, -2, 2))
    assert not is_normal(np.abs(draws))


def test_the_system_source_gives_the_law_too_with_and_without_a_cipher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert is_normal(GaussianNoise(permit()).standard(100_000))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    assert is_normal(GaussianNoise(permit()).standard(100_000))


def test_its_tails_are_the_normal_ones() -> None:
    draws = noise().standard(2_000_000)
    for reach in (3.0, 4.0):
        seen, expected = int((np.abs(draws) > reach).sum()), 2 * stats.norm.sf(reach) * len(draws)
        assert abs(seen - expected) < 5 * math.sqrt(expected) + 1
    fourth = np.mean(draws**4)
    assert abs(fourth - 3) < 5 * math.sqrt(96 / len(draws))


def test_the_two_of_a_pair_and_neighbours_are_independent() -> None:
    draws = noise().standard(1 << 17)
    half = len(draws) // 2
    assert is_independent(draws[::2], draws[1::2])  # the two of each pair
    assert is_independent(draws[:half], draws[half:])
    assert is_independent(draws[:-1], draws[1:])
    assert not is_independent(draws[:half], draws[:half])


def test_the_transform_matches_its_definition() -> None:
    """The same bits through the textbook formula, in long form."""
    source = SeededEntropy(3)
    fill = keystream.stream(source)
    halves, angle = np.empty((2, 8), np.uint32), np.empty(8, np.uint32)
    fill(halves.data)
    fill(angle.data)
    k = halves[1].astype(np.uint64) << np.uint64(32) | halves[0]
    radius = np.sqrt(-2 * np.log((k.astype(np.float64) + 0.5) * 2.0**-64))
    turn = angle.astype(np.float64) * (2 * math.pi / 2**32)
    wanted = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1).ravel()
    assert np.abs(noise().standard(16) - wanted).max() < 1e-15


def test_steps_are_independent_and_a_reused_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = noise()
    first, second = right.standard(50_000), right.standard(50_000)
    assert is_independent(first, second)
    key = SeededEntropy(5).bytes(16)

    class Reused:
        private = False

        def bytes(self, count: int) -> bytes:
            return key[:count]

    wrong = GaussianNoise(permit(Reused()))
    assert not is_independent(wrong.standard(50_000), wrong.standard(50_000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1023, 32767, 32768, 32769, 70_001])
def test_any_count_is_given(count: int) -> None:
    draws = noise().standard(count)
    assert draws.shape == (count,)
    assert len(np.unique(draws)) == count


def test_what_is_released_lies_on_the_grid_wherever_the_values_lay() -> None:
    rng = np.linspace(-3, 3, 10_001)
    grid = grid_for(1.0, rng.size)
    out = noise().add(rng, 2.0, grid)
    assert np.array_equal(out / grid, np.rint(out / grid))
    assert is_normal(out - np.rint(rng / grid) * grid, 2.0)
    # Values off the grid by less than half a cell come out alike, to the last bit.
    near = np.rint(rng / grid) * grid
    assert np.array_equal(noise().add(near + grid * 0.4, 2.0, grid), noise().add(near, 2.0, grid))


def test_a_plain_float_sum_gives_its_value_away_and_the_grid_does_not() -> None:
    """Mironov's least bits: a float's spacing near the value tells which of two lay under the noise."""
    values = np.array([0.0, 1.0 / 3])
    plain = [value + noise(7).standard(20_000) * 0.01 for value in values]
    fine = 2.0**-56
    off = [float((np.fmod(sums, fine) != 0).mean()) for sums in plain]
    assert abs(off[0] - off[1]) > 0.3
    grid = 2.0**-20
    on = [noise(7).add(np.full(20_000, value), 0.01, grid) for value in values]
    assert all(np.array_equal(np.fmod(sums, grid), np.zeros(20_000)) for sums in on)


def test_many_arrays_take_their_noise_from_one_stream_in_place() -> None:
    sizes, grid = (3, 0, 40_000, 1, 70_000), 2.0**-20
    arrays = [np.full(size, 0.3, np.float32) for size in sizes]
    noise().add_to(arrays, 1.0, grid)
    whole = noise().add(np.full(sum(sizes), np.float32(0.3)), 1.0, grid)
    assert np.array_equal(np.concatenate(arrays), whole.astype(np.float32))


def test_the_noise_does_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "SEGMENT", 40_000)
    draws = [
        GaussianNoise(permit(SeededEntropy(3)), threads=threads).standard(250_001) for threads in (1, 2, 7)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert np.array_equal(draws[0], draws[2])
    assert is_normal(draws[0])
    assert len(np.unique(draws[0])) == 250_001  # no segment is another's
    for threads in (0, 65, True, 1.5):
        with pytest.raises(InvalidRequest, match="threads"):
            GaussianNoise(permit(), threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.int64), np.zeros((4, 4)).T[1:], np.zeros(3, np.float16), np.zeros((3, 3)).T]
)
def test_noise_in_place_needs_contiguous_floats(array: NDArray[np.generic]) -> None:
    with pytest.raises(InvalidRequest, match="contiguous"):
        noise().add_to([array], 1.0, 2.0**-20)


@pytest.mark.parametrize("count", [1, 1000, 12_345_678])
@pytest.mark.parametrize("sensitivity", [0.013, 1.0, 300.0])
def test_rounding_takes_at_most_its_part_of_the_sensitivity(sensitivity: float, count: int) -> None:
    grid = grid_for(sensitivity, count)
    assert sensitivity * 2**-14 < grid * math.sqrt(count) <= sensitivity * 2**-12


@pytest.mark.parametrize(
    "wrong",
    [
        lambda it: it.standard(-1),
        lambda it: it.add(np.zeros(2), 0.0, 2.0**-20),
        lambda it: it.add(np.zeros(2), math.inf, 2.0**-20),
        lambda it: it.add(np.zeros(2), 1.0, 0.1),
        lambda it: it.add(np.zeros(2), 1.0, 0.0),
        lambda it: it.add(np.zeros(2), 1.0, 2.0),
        lambda it: it.add(np.array([0.0, math.nan]), 1.0, 2.0**-20),
        lambda it: it.add(np.array([0.0, math.inf]), 1.0, 2.0**-20),
        lambda it: it.add(np.array([1e30]), 1.0, 2.0**-20),
    ],
)
def test_what_cannot_be_done_is_refused(wrong: Callable[[GaussianNoise], object]) -> None:
    it = noise()
    with pytest.raises(InvalidRequest):
        wrong(it)
    assert it.drawn == 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1e30])
def test_one_wrong_value_among_many_is_found(
    bad: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian, "SEGMENT", 1000)
    it = GaussianNoise(permit(), threads=threads)
    for place in (0, 999, 1000, 4999):
        arrays = [np.zeros(7, np.float32), np.ones(5000, np.float32)]
        arrays[1][place] = bad
        with pytest.raises(InvalidRequest, match="clip first"):
            it.add_to(arrays, 1.0, 2.0**-20)
    assert it.drawn == 0


def test_a_grid_needs_a_sensitivity() -> None:
    for sensitivity, count in ((0.0, 3), (math.nan, 3), (math.inf, 3), (1.0, 0)):
        with pytest.raises(InvalidRequest):
            grid_for(sensitivity, count)


def test_an_ended_permit_gives_no_noise() -> None:
    right = permit()
    it = GaussianNoise(right)
    it.standard(3)
    right.settle()
    for count in (0, 3):
        with pytest.raises(InvalidRequest, match="ended"):
            it.standard(count)


def test_it_counts_and_travels_empty() -> None:
    it = noise()
    it.standard(5)
    it.add(np.zeros((2, 3)), 1.0, 2.0**-20)
    assert it.drawn == 11
    assert pickle.loads(pickle.dumps(it)) is None


def test_no_noise_comes_twice_after_a_fork() -> None:
    code = (
        "import os, numpy as np\n"
        "from sfumato.core.gate import Gate, Plan\n"
        "from sfumato.mechanisms.gaussian import GaussianNoise\n"
        "it = GaussianNoise(Gate().open(Plan(action='train', mechanism='m', guarantee='heuristic',"
        " statement='s')))\n"
        "it.standard(10)\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(w, it.standard(64).tobytes()); os._exit(0)\n"
        "os.wait()\n"
        "child = np.frombuffer(os.read(r, 512))\n"
        "assert not np.intersect1d(child, it.standard(64)).size\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_a_stream_gives_every_byte_once() -> None:
    fill = keystream.stream(SeededEntropy(1))
    parts = [bytearray(64) for _ in range(50)]
    for part in parts:
        fill(memoryview(part))
    blocks = {bytes(part[at : at + 16]) for part in parts for at in range(0, 64, 16)}
    assert len(blocks) == 200
    other = bytearray(64)
    keystream.stream(SeededEntropy(2))(memoryview(other))
    assert bytes(other) not in {bytes(part) for part in parts}


def test_a_stream_takes_a_new_key_before_it_gives_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "MOST", 100)
    taken: list[int] = []

    class Source(SeededEntropy):
        def bytes(self, count: int) -> bytes:
            taken.append(count)
            return super().bytes(count)

    fill = keystream.stream(Source(1))
    parts = [bytearray(64) for _ in range(3)]
    for part in parts:
        fill(memoryview(part))
    assert taken == [16, 16, 16]
    assert len({bytes(part) for part in parts}) == 3


def test_few_bytes_come_from_the_source_itself() -> None:
    assert keystream.fresh(SeededEntropy(1), 8) == SeededEntropy(1).bytes(8)
    assert len(keystream.fresh(SYSTEM, 1000)) == 1000
    assert keystream.fresh(SYSTEM, 1000) != keystream.fresh(SYSTEM, 1000)
