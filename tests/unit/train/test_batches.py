"""Batches are the same whoever reads them: any ranks, any workers, from any step."""

import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from sar_eval.errors import BadInput
from sar_eval.families.demo import build_text_tokenizer
from sar_eval.train.batches import MicroBatches, TextIds
from tests.unit.train.test_token_stream import stream, write

WORDS = ["picture", *map(str, range(400))]


@pytest.fixture(scope="module")
def text() -> TextIds:
    return TextIds(build_text_tokenizer(WORDS))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("tokens") / "a", 100)


def batches(place: str, text: TextIds, **changes: Any) -> MicroBatches:
    options = {"rank": 0, "ranks": 1, "batch_size": 12, "micro": 3, "first_step": 0, "steps": 6}
    return MicroBatches(stream(place, dropout=0.3), text, **{**options, **changes})


def keys(found: Any) -> list[list[str]]:
    return [batch["keys"] for batch in found]


def test_a_batch_has_the_sequences(place: str, text: TextIds) -> None:
    batch = next(iter(batches(place, text)))
    rows = stream(place, dropout=0.3).rows(0, 3)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        caption = text([row.caption])[0] if row.caption is not None else []
        codes = [text.size + code for code in row.codes.tolist()]
        sequence = [text.begin, *caption, text.image, *codes]
        assert ids.tolist()[: len(sequence)] == sequence
        assert labels.tolist()[: len(sequence)] == [-100] * (2 + len(caption)) + codes
        assert (labels[len(sequence) :] == -100).all()
    assert batch["total"] == 12 * 4
    assert batch["keys"] == [row.key for row in rows]


def test_packed_sequences_follow_each_other(place: str, text: TextIds) -> None:
    for plain, packed in zip(batches(place, text), batches(place, text, pack=True), strict=True):
        starts = (packed["position_ids"][0] == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], packed["input_ids"].shape[1]]
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            for name in ("input_ids", "labels"):
                assert torch.equal(packed[name][0, start:end], plain[name][row, : end - start])
            assert packed["position_ids"][0, start:end].tolist() == list(range(end - start))
        assert len(starts) == len(plain["input_ids"])


def test_ranks_share_a_step_in_order(place: str, text: TextIds) -> None:
    one = list(itertools.chain.from_iterable(keys(batches(place, text))))
    for ranks, micro in [(2, 3), (4, 3), (3, 2), (2, 0), (6, 2), (2, 7)]:
        parts = [keys(batches(place, text, rank=r, ranks=ranks, micro=micro)) for r in range(ranks)]
        together = [key for found in zip(*parts, strict=True) for part in found for key in part]
        assert together == one, (ranks, micro)


def test_a_training_goes_on_at_any_step(place: str, text: TextIds) -> None:
    whole = list(batches(place, text))
    for step in range(6):
        rest = list(batches(place, text, first_step=step))
        assert keys(rest) == keys(whole[step * 4 :])
        for one, other in zip(rest, whole[step * 4 :], strict=True):
            assert torch.equal(one["input_ids"], other["input_ids"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_deal_the_batches_among_themselves(place: str, text: TextIds, workers: int) -> None:
    alone, found = batches(place, text, first_step=1), batches(place, text, first_step=1)
    loaded = list(DataLoader(found, batch_size=None, num_workers=workers))
    assert keys(loaded) == keys(alone)


def test_a_batch_that_cannot_be_shared(place: str, text: TextIds) -> None:
    with pytest.raises(BadInput, match="some device would have none"):
        batches(place, text, ranks=3, batch_size=4, micro=2)
    with pytest.raises(BadInput, match="do not fit into the model's context of 5"):
        batches(place, text, context=5)
