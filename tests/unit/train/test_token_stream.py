"""Training reads its rows in an order that seed and position decide, wherever it begins."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.token_stream import TokenStream, WeightedPlace, parse_place

CODES = {"codebook_size": "8192", "encoder": "e" * 16}


def write(folder: Path, rows: int, first: int = 0, per_shard: int = 40, **said: str) -> str:
    made = [
        {"tokens": [n, n + 1, n + 2, n + 3], "caption": f"picture {n}"} for n in range(first, first + rows)
    ]
    write_shards(made, folder, TOKEN_SCHEMA, per_shard, CODES | said)
    return str(folder)


def stream(*places: str, seed: int = 0, window: int = 30, dropout: float = 0.0) -> TokenStream:
    return TokenStream([parse_place(p) for p in places], seed=seed, window=window, caption_dropout=dropout)


def firsts(found: TokenStream, start: int, stop: int) -> list[int]:
    return [int(row.codes[0]) for row in found.rows(start, stop)]


def test_an_epoch_has_each_row_once(tmp_path: Path) -> None:
    place = write(tmp_path / "a", 210)
    found = stream(place)
    assert found.rows_an_epoch == 210
    epochs = [firsts(found, n * 210, (n + 1) * 210) for n in range(3)]
    assert all(sorted(epoch) == list(range(210)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert firsts(stream(place, seed=1), 0, 210) != epochs[0]


def test_any_range_is_what_reading_on_gives(tmp_path: Path) -> None:
    found = stream(write(tmp_path / "a", 210))
    whole = firsts(found, 0, 700)
    other = stream(str(tmp_path / "a"))
    for start, stop in [(0, 1), (209, 211), (650, 700), (13, 140), (420, 421)]:
        assert firsts(other, start, stop) == whole[start:stop]


def test_a_stream_that_forgot_reads_again(tmp_path: Path) -> None:
    found = stream(write(tmp_path / "a", 210))
    before = firsts(found, 0, 60)
    assert found._sources[0]._buffer.nbytes > 0
    found.forget()
    assert (found._sources[0]._window, found._sources[0]._buffer.nbytes) == (None, 0)
    assert firsts(found, 0, 60) == before


def test_the_rows_are_those_of_the_shards(tmp_path: Path) -> None:
    for row in stream(write(tmp_path / "a", 90)).rows(0, 90):
        n = int(row.codes[0])
        assert (row.codes - n).tolist() == [0, 1, 2, 3]
        assert (row.caption, row.height, row.width) == (f"picture {n}", 2, 2)
        assert row.key == f"{tmp_path / 'a'}/shard-{n // 40:05d}.parquet:{n % 40}"
        assert row.codes.dtype == np.int32


def test_sources_have_their_shares(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 1000, per_shard=500), write(tmp_path / "b", 3000, 2000, per_shard=500)
    found = stream(f"{a}:0.7", f"{b}:0.3", window=1000)
    taken = firsts(found, 0, 10_000)
    assert sum(n < 2000 for n in taken) == 7000
    assert set(Counter(n for n in taken if n < 2000).values()) == {7}
    assert set(Counter(n for n in taken if n >= 2000).values()) == {1}
    assert abs(sum(n < 2000 for n in taken[:1000]) - 700) < 60
    again = stream(f"{a}:7", f"{b}:3", window=1000)
    assert firsts(again, 9_990, 10_010) == [*taken[-10:], *firsts(found, 10_000, 10_010)]


def test_some_weights_are_none(tmp_path: Path) -> None:
    a = write(tmp_path / "a", 4)
    with pytest.raises(BadInput, match="has no weight, but other data has"):
        stream(f"{a}:0.7", a)
    with pytest.raises(BadInput, match="weight is 0: it must be above 0"):
        parse_place("x:0")
    (tmp_path / "x:1").mkdir()
    assert parse_place(str(tmp_path / "x:1")) == WeightedPlace(str(tmp_path / "x:1"))
    assert parse_place("s3://bucket/x:1e-1") == WeightedPlace("s3://bucket/x", 0.1)


@pytest.mark.parametrize("weight", ["", ":1"])
def test_shards_of_two_makers_are_trained_together(tmp_path: Path, weight: str) -> None:
    """`train tokenize` writes how far it scales pictures down, `train select` and `synth` do not."""
    base, winners = write(tmp_path / "a", 50, downsample="16"), write(tmp_path / "b", 50, 100)
    found = stream(base + weight, winners + weight, window=100)
    assert {n >= 100 for n in firsts(found, 0, 100)} == {False, True}
    other = write(tmp_path / "c", 9, encoder="f" * 16)
    with pytest.raises(
        BadInput, match=r"c.* was made with codebook_size '8192', encoder 'f+', .*tokenizers"
    ):
        stream(base + weight, other + weight)


def test_captions_are_dropped_anew_in_each_epoch(tmp_path: Path) -> None:
    place = write(tmp_path / "a", 1000)
    found = stream(place, dropout=0.25)
    dropped = [
        {int(row.codes[0]) for row in found.rows(n * 1000, n * 1000 + 1000) if row.caption is None}
        for n in range(2)
    ]
    assert all(190 < len(rows) < 310 for rows in dropped)
    assert 30 < len(dropped[0] & dropped[1]) < 100
    assert all(row.caption is None for row in stream(place, dropout=1.0).rows(0, 9))
