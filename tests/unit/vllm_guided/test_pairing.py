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


@given(st.lists(st.integers(0, 46)), st.booleans(), st.sets(st.integers(0, 6)))
def test_ids_are_converted_to_the_layout_and_back(ids: list[int], full: bool, forced: set[int]) -> None:
    layout = TokenLayout(40, 7, full, tuple(sorted(forced)))
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


@pytest.mark.parametrize("full", [False, True])
def test_what_is_forced_has_a_column_and_its_row_of_the_head(full: bool) -> None:
    layout = TokenLayout(40, 7, full, (2, 5))
    assert layout.columns == (49 if full else 44)
    assert layout.to_engine_ids([2, 5, 0, 6, 7]) == [42, 43, 44, 48, 0]
    rows = torch.arange(47.0)[:, None]
    head = layout.reorder_head(rows)
    ids = range(47) if full else [2, 5, *range(7, 47)]
    assert head[layout.to_engine_ids(ids), 0].tolist() == list(ids)
    # Of a head that predicts codes alone, as Janus' does.
    of_codes = TokenLayout(40, 7, False, (2, 5)).reorder_head(rows[7:])
    assert of_codes[:, 0].tolist() == [*range(7, 47), 0, 0, 0, 0]


def test_keys_of_one_position_are_those_of_all() -> None:
    seeds = [3, 2**62, 9]
    keys = noise_keys(seeds, 20, CPU)
    expected = torch.stack([keys[0, 0], keys[7, 1], keys[19, 2]])
    assert torch.equal(noise_keys_at(seeds, [0, 7, 19]), expected)


def _rows(branch: Branch, num_tokens: int, indices: tuple[int, int]) -> list[LogitsRow]:
    negative = replace(branch, index=1)
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
        (Branch("a", 0, 11, 0, 3.0, 1.0, 0, 1.0, with_log_probabilities), 4, (5, 0)),
        (Branch("b", 0, 12, 6, 6.0, 0.7, 20, 0.9, with_log_probabilities), 0, (2, 4)),
    ]
    unguided = Branch("c", 0, 13, 0, 1.0, 1.0, 0, 1.0, with_log_probabilities)
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
    first, second = _rows(Branch("a", 0, 1, 0, 3.0), 2, (0, 1))
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
    rows = _rows(Branch("a", 0, 1, 0, 3.0), 0, (0, 1)) + _rows(Branch("b", 0, 2, 0, 3.0), 0, (2, 3))
    PairSampler(LAYOUT, CPU)(logits, rows)
    best = logits.argmax(-1).tolist()
    assert best[:2] == [LAYOUT.not_finite_id] * 2
    assert best[2] == best[3] < LAYOUT.codebook_size


def test_log_probabilities_are_those_of_the_sampled_token() -> None:
    logits = torch.randn(2, LAYOUT.columns, generator=torch.Generator().manual_seed(2))
    before = logits[:, : LAYOUT.codebook_size].clone()
    branch = Branch("a", 0, 1, 0, 2.0, 0.5, 0, 1.0, True)
    PairSampler(LAYOUT, CPU)(logits, _rows(branch, 0, (0, 1)))
    token = int(logits[0].argmax())
    guided = (before[1] + 2.0 * (before[0] - before[1])) / 0.5
    assert logits[0, token].item() == pytest.approx(guided.log_softmax(-1)[token].item(), abs=1e-5)
    conditional = (before[0] / 0.5).log_softmax(-1)
    assert logits[1, token].item() == pytest.approx(conditional[token].item(), abs=1e-5)


def test_a_branch_is_converted_to_plain_data_and_back() -> None:
    branch = Branch("a", 1, 2**62, 5, 3.0, 0.5, 10, 0.9, True, 0.1, ((3.0, 1.0),), ((4, 42),))
    assert Branch.from_dict(branch.to_dict()) == branch
    sampling = {"guidance": 3.0, "temperature": 0.5, "top_k": 10, "top_p": 0.9, "min_p": 0.1}
    assert branch.protocol == DrawProtocol("branch", 0, **sampling)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pair_id": 3},
        {"guidance": "6"},
        {"unknown": 1},
        {"index": "0"},
        {"weights": 6.0},
        {"weights": [6.0]},
        {"forced": [["4", 2]]},
    ],
)
def test_invalid_data_of_a_branch_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a branch has no"):
        Branch.from_dict(Branch("a", 0, 1).to_dict() | wrong)
    with pytest.raises(ValueError, match="pair_id"):
        Branch.from_dict({"index": 0, "seed": 1})


FORCED = TokenLayout(40, 7, forced_ids=(2, 5))
# Lines of three codes: slots 3 and 7 are forced, to the ids 5 and 2 of the checkpoint.
LINES = ((3, 43), (7, 42))


def _image(branch: Branch, num_tokens: int, first: int) -> list[LogitsRow]:
    """All rows of an image, in rows of logits that follow one another."""
    branches = [replace(branch, index=index) for index in range(branch.branches)]
    return [LogitsRow(first + branch.index, branch, num_tokens) for branch in branches]


def _plain(logits: torch.Tensor, branch: Branch, code: int, weights: list[float] | None) -> int:
    keys, noise_ids = noise_keys_at([branch.seed], [code]), torch.arange(40, dtype=torch.int32)
    own = None if weights is None else torch.tensor([weights])
    [token], _ = sample(logits[:, :40], keys, noise_ids, branch.protocol, own)
    return int(token)


@pytest.mark.parametrize("start", [0, 2, 3, 4])
def test_forced_tokens_are_not_sampled_and_do_not_shift_noise(start: int) -> None:
    """Whatever part of the image is in the prompt already, as after a restart."""
    branch = Branch("a", 0, 9, start, 3.0, forced=LINES)
    generator = torch.Generator().manual_seed(3)
    codes = {slot: code for code, slot in enumerate(n for n in range(10) if n not in (3, 7))}
    for slot in range(start, 10):
        logits = torch.randn(2, FORCED.columns, generator=generator)
        before = logits.clone()
        PairSampler(FORCED, CPU)(logits, _image(branch, slot - start, 0))
        tokens = logits.argmax(-1).tolist()
        expected = dict(LINES).get(slot)
        if expected is None:
            expected = _plain(before, branch, codes[slot], None)
        assert tokens == [expected] * 2
        assert logits.isfinite().sum() == 2


def test_scores_of_a_forced_slot_may_be_anything() -> None:
    logits = torch.full((2, FORCED.columns), torch.nan)
    PairSampler(FORCED, CPU)(logits, _image(Branch("a", 0, 9, 0, 3.0, forced=LINES), 3, 0))
    assert logits.argmax(-1).tolist() == [43, 43]


def test_rows_out_of_sync_are_not_forced() -> None:
    rows = _image(Branch("a", 0, 9, 0, 3.0, forced=LINES), 3, 0)
    logits = torch.randn(2, FORCED.columns)
    PairSampler(FORCED, CPU)(logits, [rows[0], replace(rows[1], num_tokens=2)])
    assert logits.argmax(-1).tolist() == [FORCED.out_of_sync_id] * 2


@pytest.mark.parametrize("scored", [False, True])
def test_three_branches_and_weights_of_each_code(scored: bool) -> None:
    weights = ((3.0, 1.0), (0.5, -1.0), (2.0, 4.0), (1.0, 0.0), (7.0, 1.0), (1.5, 2.5))
    kinds = [
        Branch("a", 0, 5, return_log_probabilities=scored, weights=weights, forced=LINES),
        Branch("b", 0, 6, return_log_probabilities=scored, weights=weights[:1], forced=LINES),
        Branch("c", 0, 7, 3, return_log_probabilities=scored, weights=weights, forced=LINES),
    ]
    logits = torch.randn(9, FORCED.columns, generator=torch.Generator().manual_seed(4))
    before = logits.clone()
    places = [(4, 3), (5, 4), (2, 4)]  # tokens of the request, and number of the code that comes next
    rows = [row for n, branch in enumerate(kinds) for row in _image(branch, places[n][0], 3 * n)]
    PairSampler(FORCED, CPU)(logits, rows[::-1])
    for n, (branch, (_, code)) in enumerate(zip(kinds, places, strict=True)):
        own = list(branch.weights[code if len(branch.weights) > 1 else 0])
        token = _plain(before[3 * n : 3 * n + 3], branch, code, own)
        assert logits[3 * n : 3 * n + 3].argmax(-1).tolist() == [token] * 3
        first, second, last = before[3 * n : 3 * n + 3, :40]
        guided = last + own[0] * (first - last) + own[1] * (second - last)
        values = guided.log_softmax(-1)[token], first.log_softmax(-1)[token], torch.zeros(())
        expected = torch.stack(values) * scored
        torch.testing.assert_close(logits[3 * n : 3 * n + 3, token], expected, atol=1e-5, rtol=0)


def test_an_image_with_a_branch_too_few_is_out_of_sync() -> None:
    rows = _image(Branch("a", 0, 5, weights=((3.0, 1.0),)), 2, 0)
    assert in_sync(rows)
    assert not in_sync(rows[:2])
    assert not in_sync(rows[1:])
