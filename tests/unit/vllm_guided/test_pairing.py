"""Rows that belong together: how ids are numbered, what is in step, what is sampled and forced."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.decoding.noise import keys_at, noise_keys
from sar_eval.decoding.sampling import sample
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.pairing import Branch, Layout, PairSampler, Row, in_step

LAYOUT = Layout(codes=40, text=7)
FULL = Layout(codes=40, text=7, full=True)
CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 46)), st.booleans())
def test_ids_go_in_and_out(ids: list[int], full: bool) -> None:
    layout = Layout(40, 7, full)
    inside = layout.inward(ids)
    assert layout.outward(inside) == ids
    assert all(0 <= i < layout.vocabulary for i in inside)
    assert {layout.out_of_step, layout.fault}.isdisjoint(inside)


def test_a_mark_is_no_token() -> None:
    with pytest.raises(ValueError, match="41 is a mark"):
        LAYOUT.outward([3, LAYOUT.fault])


def test_rows_of_a_table_follow_the_ids() -> None:
    table = torch.arange(47.0)[:, None]
    moved = FULL.rows(table)
    ids = list(range(47))
    assert moved[FULL.inward(ids), 0].tolist() == ids
    assert moved[[FULL.out_of_step, FULL.fault]].tolist() == [[0.0], [0.0]]
    assert (LAYOUT.columns, FULL.columns) == (42, 49)


def test_keys_of_one_position_are_those_of_all() -> None:
    seeds = [3, 2**62, 9]
    every = noise_keys(seeds, 20, CPU)
    assert torch.equal(keys_at(seeds, [0, 7, 19]), torch.stack([every[0, 0], every[7, 1], every[19, 2]]))


def _rows(branch: Branch, tokens: int, places: tuple[int, int]) -> list[Row]:
    other = Branch(**{**branch.to_args(), "negative": True})
    return [Row(places[0], branch, tokens), Row(places[1], other, tokens)]


@pytest.mark.parametrize("layout", [LAYOUT, FULL])
@pytest.mark.parametrize("scored", [False, True])
def test_each_image_gets_the_token_of_plain_sampling(layout: Layout, scored: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, layout.columns, generator=generator) * 3
    before = logits.clone()
    images = [
        (Branch("a", False, 11, 0, 3.0, 1.0, 0, 1.0, scored), 4, (5, 0)),
        (Branch("b", False, 12, 6, 6.0, 0.7, 20, 0.9, scored), 0, (2, 4)),
    ]
    alone = Branch("c", False, 13, 0, 1.0, 1.0, 0, 1.0, scored)
    rows = [row for branch, tokens, places in images for row in _rows(branch, tokens, places)]
    PairSampler(layout, CPU)(logits, [rows[3], rows[0], Row(1, alone, 9), rows[2], rows[1]])
    names = torch.arange(layout.codes, dtype=torch.int32)
    columns = torch.arange(layout.codes)
    if layout.full:
        names = torch.cat([names, torch.arange(-layout.text, 0, dtype=torch.int32)])
        columns = torch.cat([columns, torch.arange(layout.codes + 2, layout.vocabulary)])
    for branch, tokens, places in [*images, (alone, 9, (1,))]:
        seen = before[list(places)][:, columns]
        keys = keys_at([branch.seed], [branch.start + tokens])
        [place], _ = sample(seen, keys, names, branch.protocol)
        for row in places:
            finite = logits[row].isfinite().nonzero().flatten().tolist()
            assert finite == [int(columns[place])]
        value = logits[places[0]][finite[0]]
        assert value <= 0 if scored else value == 0
    assert torch.equal(logits[[3, 6]], before[[3, 6]])  # rows of somebody else


@pytest.mark.parametrize(
    "fault",
    ["alone", "ahead", "another start", "twice the prompt", "three rows", "before its prompt's end"],
)
def test_rows_out_of_step_get_the_mark_and_no_token(fault: str) -> None:
    first, second = _rows(Branch("a", False, 1, 0, 3.0), 2, (0, 1))
    later = Row(1, second.branch, 3)
    moved = Row(1, Branch(**{**second.branch.to_args(), "start": 1}), 2)
    rows = {
        "alone": [first],
        "ahead": [first, later],
        "another start": [first, moved],
        "twice the prompt": [first, Row(1, first.branch, 2)],
        "three rows": [first, second, Row(2, second.branch, 2)],
        "before its prompt's end": [Row(0, first.branch, -1), Row(1, second.branch, -1)],
    }[fault]
    assert not in_step(rows)
    logits = torch.randn(3, LAYOUT.columns)
    PairSampler(LAYOUT, CPU)(logits, rows)
    assert all(logits[row.place].argmax() == LAYOUT.out_of_step for row in rows)


def test_scores_that_are_no_numbers_end_their_image_alone() -> None:
    logits = torch.randn(4, LAYOUT.columns)
    logits[1, 5] = torch.nan
    rows = _rows(Branch("a", False, 1, 0, 3.0), 0, (0, 1)) + _rows(Branch("b", False, 2, 0, 3.0), 0, (2, 3))
    PairSampler(LAYOUT, CPU)(logits, rows)
    best = logits.argmax(-1).tolist()
    assert best[:2] == [LAYOUT.fault] * 2
    assert best[2] == best[3] < LAYOUT.codes


def test_log_probabilities_are_those_of_the_drawn_token() -> None:
    logits = torch.randn(2, LAYOUT.columns, generator=torch.Generator().manual_seed(2))
    before = logits[:, : LAYOUT.codes].clone()
    branch = Branch("a", False, 1, 0, 2.0, 0.5, 0, 1.0, True)
    PairSampler(LAYOUT, CPU)(logits, _rows(branch, 0, (0, 1)))
    token = int(logits[0].argmax())
    guided = (before[1] + 2.0 * (before[0] - before[1])) / 0.5
    assert logits[0, token].item() == pytest.approx(guided.log_softmax(-1)[token].item(), abs=1e-5)
    alone = (before[0] / 0.5).log_softmax(-1)
    assert logits[1, token].item() == pytest.approx(alone[token].item(), abs=1e-5)


def test_a_branch_travels_as_plain_data() -> None:
    branch = Branch("a", True, 2**62, 5, 3.0, 0.5, 10, 0.9, True)
    assert Branch.from_args(branch.to_args()) == branch
    assert branch.protocol == DrawProtocol("branch", 0, guidance=3.0, temperature=0.5, top_k=10, top_p=0.9)


@pytest.mark.parametrize("wrong", [{"pair": 3}, {"guidance": "6"}, {"unknown": 1}, {"negative": 0}])
def test_a_branch_of_other_data_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a branch has no"):
        Branch.from_args(Branch("a", False, 1).to_args() | wrong)
    with pytest.raises(ValueError, match="pair"):
        Branch.from_args({"negative": False, "seed": 1})
