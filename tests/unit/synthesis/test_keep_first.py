"""Near-duplicates are found exactly: against brute force, whatever the hashes and however they crowd."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sar_eval.synthesis import near_hashes as banding
from sar_eval.synthesis.keep_first import keep_first, repeats_of_equal, repeats_of_near_hashes

Hashes = NDArray[np.uint64]


def _crowded(seed: int, count: int, centres: int, flips: int) -> Hashes:
    """Hashes round a few centres, each with up to so many bits of its centre turned."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, centres, dtype=np.uint64)[rng.integers(0, centres, count)]
    for _ in range(flips):
        hashes ^= (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)) * rng.integers(
            0, 2, count, dtype=np.uint64
        )
    return hashes


def _all_near(hashes: Hashes, distance: int) -> set[tuple[int, int]]:
    """Brute force."""
    values = [int(h) for h in hashes]
    return {
        (min(a, b), max(a, b))
        for n, a in enumerate(values)
        for b in values[:n]
        if (a ^ b).bit_count() <= distance
    }


def _by_the_rule(hashes: Hashes, distance: int) -> list[int]:
    """One draw after the other: it repeats the first kept one that is near."""
    kept: list[int] = []
    repeats = []
    for place, value in enumerate(int(h) for h in hashes):
        near = (at for at in kept if (int(hashes[at]) ^ value).bit_count() <= distance)
        repeats.append(next(near, place))
        if repeats[-1] == place:
            kept.append(place)
    return repeats


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred hashes fill several chunks and have long runs."""
    monkeypatch.setattr(banding, "CHUNK", 37)
    monkeypatch.setattr(banding, "LONG_RUN", 5)
    monkeypatch.setattr(banding, "TABLE", 0.0)  # or small sets would be compared all with all
    monkeypatch.setattr(banding, "SORTING", 0.0)
    monkeypatch.setattr(banding, "MOST_AGREEING", 2)


crowds = st.builds(
    _crowded, st.integers(0, 2**32), st.integers(0, 90), st.integers(1, 30), st.integers(0, 12)
)


@settings(max_examples=25, deadline=None)
@given(crowds, st.integers(0, banding.MAX_DISTANCE), st.integers(1, 3))
def test_bands_find_each_pair_once_and_no_others(hashes: Hashes, distance: int, agreeing: int) -> None:
    hashes = np.unique(hashes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banding, "MOST_AGREEING", agreeing)
        pairs = [
            (int(min(a, b)), int(max(a, b)))
            for left, right in banding.near_hashes(hashes, distance)
            for a, b in zip(left, right, strict=True)
        ]
    assert sorted(pairs) == sorted(_all_near(hashes, distance))


@settings(max_examples=25, deadline=None)
@given(crowds, st.integers(0, 6))
def test_the_first_stays_and_what_is_near_it_goes(hashes: Hashes, distance: int) -> None:
    assert repeats_of_near_hashes(hashes, distance).tolist() == _by_the_rule(hashes, distance)


def test_a_long_chain_is_decided_to_its_end() -> None:
    """Each is near the one before alone, so every other one stays: no parallel rounds decide this."""
    chain = np.uint64(2) ** np.arange(64, dtype=np.uint64) - np.uint64(1)
    assert repeats_of_near_hashes(chain, 1).tolist() == [n - n % 2 for n in range(64)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.floats(0, 0.6))
def test_any_graph_gets_its_first_independent_set(seed: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    near = np.triu(rng.random((count, count)) < share, 1)
    near |= near.T
    priority = rng.permutation(count) * 10

    def find_pairs(among: NDArray[np.int64] | slice) -> Iterator[tuple[NDArray[np.int64], ...]]:
        places = np.arange(count)[among]
        left, right = np.nonzero(near[np.ix_(places, places)])
        yield places[left], places[right]

    kept: list[int] = []
    expected = priority.copy()
    for place in np.argsort(priority):
        expected[place] = next((priority[at] for at in kept if near[at, place]), priority[place])
        kept += [place] if expected[place] == priority[place] else []
    assert keep_first(priority, find_pairs).tolist() == expected.tolist()


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=16, max_size=16).map(lambda b: b[:1] + bytes(15)) | st.just(bytes(16))))
def test_equal_digests_repeat_the_first(digests: list[bytes]) -> None:
    found = repeats_of_equal(np.array(digests, "S16"))
    assert found.tolist() == [digests.index(digest) for digest in digests]
