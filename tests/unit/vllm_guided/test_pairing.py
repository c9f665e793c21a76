"""Pairs of rows: token ids, when they are in sync, what is sampled and forced."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.decoding.noise import noise_keys, noise_keys_at
from sar_eval.decoding.sampling import sample
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.pairing import Branch, LogitsRow, PairSampler, TokenLayout, in_sync

LAYOUT = TokenLayout(codebook_size=40, text_vocab_size=7)
FULL = TokenLayout(codebook_size=40, text_vocab_size=7, full_vocab=True)
CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 46)), st.booleans())
def test_ids_are_converted_to_the_layout_and_back(ids: list[int], full: bool) -> None:
    layout = TokenLayout(40, 7, full)
    engine_ids = layout.to_engine_ids(ids)
    assert layout.to_checkpoint_ids(engine_ids) == ids
    assert all(0 <= i < layout.vocab_size for i in engine_ids)
    assert {layout.out_of_sync_id, layout.not_finite_id}.isdisjoint(engine_ids)


def test_a_marker_has_no_checkpoint_id() -> None:
    with pytest.raises(ValueError, match="41 is a marker"):
        LAYOUT.to_checkpoint_ids([3, LAYOUT.not_finite_id])


def test_rows_of_a_table_follow_the_ids() -> None:
    table = torch.arange(47.0)[:, None]
    reordered = FULL.reorder_rows(table)
    ids = list(range(47))
    assert reordered[FULL.to_engine_ids(ids), 0].tolist() == ids
    assert reordered[[FULL.out_of_sync_id, FULL.not_finite_id]].tolist() == [[0.0], [0.0]]
    assert (LAYOUT.columns, FULL.columns) == (42, 49)


def test_keys_of_one_position_are_those_of_all() -> None:
    seeds = [3, 2**62, 9]
    keys = noise_keys(seeds, 20, CPU)
    expected = torch.stack([keys[0, 0], keys[7, 1], keys[19, 2]])
    assert torch.equal(noise_keys_at(seeds, [0, 7, 19]), expected)


def _rows(branch: Branch, num_tokens: int, indices: tuple[int, int]) -> list[LogitsRow]:
    negative = replace(branch, is_negative=True)
    return [LogitsRow(indices[0], branch, num_tokens), LogitsRow(indices[1], negative, num_tokens)]


@pytest.mark.parametrize("layout", [LAYOUT, FULL])
@pytest.mark.parametrize("with_log_probabilities", [False, True])
def test_each_image_gets_the_token_of_plain_sampling(
    layout: TokenLayout, with_log_probabilities: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, layout.columns, generator=generator) * 3
    before = logits.clone()
    images = [
        (Branch("a", False, 11, 0, 3.0, 1.0, 0, 1.0, with_log_probabilities), 4, (5, 0)),
        (Branch("b", False, 12, 6, 6.0, 0.7, 20, 0.9, with_log_probabilities), 0, (2, 4)),
    ]
    unguided = Branch("c", False, 13, 0, 1.0, 1.0, 0, 1.0, with_log_probabilities)
    rows = [row for branch, num_tokens, indices in images for row in _rows(branch, num_tokens, indices)]
    PairSampler(layout, CPU)(logits, [rows[3], rows[0], LogitsRow(1, unguided, 9), rows[2], rows[1]])
    noise_ids = torch.arange(layout.codebook_size, dtype=torch.int32)
    columns = torch.arange(layout.codebook_size)
    if layout.full_vocab:
        noise_ids = torch.cat([noise_ids, torch.arange(-layout.text_vocab_size, 0, dtype=torch.int32)])
        columns = torch.cat([columns, torch.arange(layout.codebook_size + 2, layout.vocab_size)])
    for branch, num_tokens, indices in [*images, (unguided, 9, (1,))]:
        token_logits = before[list(indices)][:, columns]
        keys = noise_keys_at([branch.seed], [branch.start + num_tokens])
        [token], _ = sample(token_logits, keys, noise_ids, branch.protocol)
        for row in indices:
            finite = logits[row].isfinite().nonzero().flatten().tolist()
            assert finite == [int(columns[token])]
        value = logits[indices[0]][finite[0]]
        assert value <= 0 if with_log_probabilities else value == 0
    assert torch.equal(logits[[3, 6]], before[[3, 6]])  # rows of other requests


@pytest.mark.parametrize(
    "fault",
    ["alone", "ahead", "another start", "twice the prompt", "three rows", "before its prompt's end"],
)
def test_rows_out_of_sync_get_the_marker_and_no_token(fault: str) -> None:
    first, second = _rows(Branch("a", False, 1, 0, 3.0), 2, (0, 1))
    later = LogitsRow(1, second.branch, 3)
    moved = LogitsRow(1, replace(second.branch, start=1), 2)
    rows = {
        "alone": [first],
        "ahead": [first, later],
        "another start": [first, moved],
        "twice the prompt": [first, LogitsRow(1, first.branch, 2)],
        "three rows": [first, second, LogitsRow(2, second.branch, 2)],
        "before its prompt's end": [LogitsRow(0, first.branch, -1), LogitsRow(1, second.branch, -1)],
    }[fault]
    assert not in_sync(rows)
    logits = torch.randn(3, LAYOUT.columns)
    PairSampler(LAYOUT, CPU)(logits, rows)
    assert all(logits[row.index].argmax() == LAYOUT.out_of_sync_id for row in rows)


def test_scores_that_are_not_finite_end_their_image_alone() -> None:
    logits = torch.randn(4, LAYOUT.columns)
    logits[1, 5] = torch.nan
    rows = _rows(Branch("a", False, 1, 0, 3.0), 0, (0, 1)) + _rows(Branch("b", False, 2, 0, 3.0), 0, (2, 3))
    PairSampler(LAYOUT, CPU)(logits, rows)
    best = logits.argmax(-1).tolist()
    assert best[:2] == [LAYOUT.not_finite_id] * 2
    assert best[2] == best[3] < LAYOUT.codebook_size


def test_log_probabilities_are_those_of_the_sampled_token() -> None:
    logits = torch.randn(2, LAYOUT.columns, generator=torch.Generator().manual_seed(2))
    before = logits[:, : LAYOUT.codebook_size].clone()
    branch = Branch("a", False, 1, 0, 2.0, 0.5, 0, 1.0, True)
    PairSampler(LAYOUT, CPU)(logits, _rows(branch, 0, (0, 1)))
    token = int(logits[0].argmax())
    guided = (before[1] + 2.0 * (before[0] - before[1])) / 0.5
    assert logits[0, token].item() == pytest.approx(guided.log_softmax(-1)[token].item(), abs=1e-5)
    conditional = (before[0] / 0.5).log_softmax(-1)
    assert logits[1, token].item() == pytest.approx(conditional[token].item(), abs=1e-5)


def test_a_branch_is_converted_to_plain_data_and_back() -> None:
    branch = Branch("a", True, 2**62, 5, 3.0, 0.5, 10, 0.9, True, 0.1)
    assert Branch.from_dict(branch.to_dict()) == branch
    sampling = {"guidance": 3.0, "temperature": 0.5, "top_k": 10, "top_p": 0.9, "min_p": 0.1}
    assert branch.protocol == DrawProtocol("branch", 0, **sampling)


@pytest.mark.parametrize("wrong", [{"pair_id": 3}, {"guidance": "6"}, {"unknown": 1}, {"is_negative": 0}])
def test_invalid_data_of_a_branch_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a branch has no"):
        Branch.from_dict(Branch("a", False, 1).to_dict() | wrong)
    with pytest.raises(ValueError, match="pair_id"):
        Branch.from_dict({"is_negative": False, "seed": 1})
