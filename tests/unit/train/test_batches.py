"""Batches are the same whoever reads them: any ranks, any workers, from any step."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.errors import BadInput
from sar_eval.families.demo import build_text_tokenizer
from sar_eval.train.batches import MicroBatches, MicroBatchLoader, TextIds
from sar_eval.train.training_options import TrainingOptions
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
    for ranks, micro in [(2, 3), (4, 3), (3, 2), (6, 2), (2, 6)]:
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
    loaded = list(MicroBatchLoader(found, workers=workers))
    assert keys(loaded) == keys(alone)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(BadInput, match="cannot be shared by 3 devices in forward passes of 2 pictures"):
        TrainingOptions(steps=1, batch_size=8, learning_rate=1e-3, micro=2).micro_batch(3)


def test_a_picture_that_is_longer_than_the_context(place: str, text: TextIds) -> None:
    with pytest.raises(BadInput, match="do not fit into the model's context of 5"):
        batches(place, text, context=5)


def test_special_tokens_of_captions_are_text(text: TextIds) -> None:
    [ids] = text(["picture <|soi|> 7"])
    assert text.image not in ids
    assert len(ids) > 2


def test_a_long_caption_is_cut_and_counted(place: str, text: TextIds) -> None:
    whole, cut = list(batches(place, text)), list(batches(place, text, context=7))
    assert sum(batch["truncated"] for batch in whole) == 0
    assert sum(batch["truncated"] for batch in cut) == sum(
        caption is not None for batch in whole for caption in _captions(batch, text)
    )
    assert all(batch["input_ids"].shape[1] <= 7 for batch in cut)


def _captions(batch: dict[str, Any], text: TextIds) -> list[bool | None]:
    """Of each row whether it has one; None where it was dropped."""
    return [True if row[1] != text.image else None for row in batch["input_ids"].tolist()]


def test_a_tokenizer_without_the_control_tokens() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(BadInput, match=r"lacks <\|t2i\|>, <\|soi\|>"):
        TextIds(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_the_data_is_told_by_workers_too(
    tmp_path: Path, text: TextIds, workers: int
) -> None:
    found = batches(write(tmp_path / "a", 50), text)
    for path in (tmp_path / "a").glob("shard-*"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"^[^\n]*shard-0000\d\.parquet[^\n]*$"):
        list(MicroBatchLoader(found, workers=workers))


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_pictures_do_not_see_each_other(place: str, text: TextIds, attention: str) -> None:
    """transformers makes the mask of position ids that begin again: the losses are those of padded rows."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": text.size + 4096}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM._from_config(Qwen2Config(**shape, **heads), attn_implementation=attention)
    losses = []
    for pack in (False, True):
        batch = next(iter(batches(place, text, pack=pack)))
        ids = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
        with torch.no_grad():
            logits = model(**ids, use_cache=False).logits[:, :-1]
        wanted = batch["labels"][:, 1:]
        losses.append(torch.nn.functional.cross_entropy(logits[wanted >= 0], wanted[wanted >= 0]))
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
