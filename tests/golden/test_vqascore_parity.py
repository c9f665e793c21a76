"""VQAScore's CLIP-FlanT5 against t2v_metrics 3.0 on a tiny network with a tokenizer of its own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.images.picture import Picture
from sar_eval.networks.clip_flant5.network import Question, answer_scores, score_answers
from sar_eval.scorers.vqascore import VqaScore
from tests.parity_data import needs

SCORE, LOGITS, PIXELS, PROJECTED = 1e-5, 5e-5, 1e-5, 5e-5  # tolerances of the data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(parity: Path) -> Path:
    return needs(parity / "vqascore" / "cases.json").parent


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "cases.json").read_text())


@pytest.fixture(scope="module")
def scorer(folder: Path) -> VqaScore:
    with VqaScore(weights=str(folder)) as scorer:
        yield scorer


def cases(folder: Path, data: dict[str, Any]) -> list[tuple[int, dict[str, Any], Picture, str]]:
    """Number, case, picture and prompt of the cases whose pictures are there."""
    found = [
        (number, case, Picture.open(folder / case["image"]), data["texts"][case["text_id"]])
        for number, case in enumerate(data["cases"])
        if (folder / case["image"]).exists()
    ]
    assert len(found) >= 6
    return found


def test_the_ids_of_every_text_are_the_official_ones(data: dict[str, Any], scorer: VqaScore) -> None:
    assert len(scorer._form.tokenizer) == data["tokenizer_length"]
    for case in data["cases"]:
        question = scorer._form.question(data["texts"][case["text_id"]])
        assert [*question.before, -200, *question.after] == case["input_ids"], case["id"]
        assert question.answer == case["labels"]


def test_scores_equal_the_official_ones_alone_and_in_a_batch(
    folder: Path, data: dict[str, Any], scorer: VqaScore
) -> None:
    found = cases(folder, data)
    expected = [case["score"] for _, case, _, _ in found]
    [alone] = scorer.score([found[0][2]], [found[0][3]])
    assert alone.value == pytest.approx(expected[0], rel=0, abs=SCORE)
    scores = scorer.score([picture for _, _, picture, _ in found], [prompt for *_, prompt in found])
    assert [score.value for score in scores] == pytest.approx(expected, rel=0, abs=SCORE)


@pytest.mark.slow
def test_both_factors_of_the_score_are_the_official_ones(
    folder: Path, data: dict[str, Any], scorer: VqaScore
) -> None:
    form = scorer._form
    for _, case, picture, prompt in cases(folder, data)[:3]:
        with torch.inference_mode():
            words = form._network.project(form.prepare(picture)[None])
            logits = form._network.answer_logits(words, [form.question(prompt)], len(form.tokenizer))
        yes, end = logits[0].softmax(-1)[[0, 1], case["labels"]].tolist()
        assert (yes, end) == pytest.approx((case["p_yes"], case["p_eos_given_yes"]), abs=SCORE)
        assert answer_scores(logits, [case["labels"]]) == pytest.approx([(yes * end) ** 0.5])


@pytest.mark.slow
def test_each_stage_equals_the_official_one(folder: Path, data: dict[str, Any], scorer: VqaScore) -> None:
    from safetensors.torch import load_file

    expected = load_file(needs(folder / "expected.safetensors"))
    form = scorer._form

    def differs(found: torch.Tensor, name: str) -> float:
        return (found - expected[name]).abs().max().item()

    for number, _, picture, prompt in cases(folder, data):
        pixels = form.prepare(picture)
        step = 7 if number < 2 else 21
        assert differs(pixels[:, ::step, ::step], f"pixels_subsampled/{number}") <= PIXELS
        assert differs(pixels.mean(2), f"pixels_row_means/{number}") <= PIXELS
        with torch.inference_mode():
            words, question = form._network.project(pixels[None]), form.question(prompt)
            states, _ = form._network.encode(words, [question])
            logits = form._network.answer_logits(words, [question], len(form.tokenizer))
        if number < 2:
            assert differs(words[0], f"projected/{number}") <= PROJECTED
        assert differs(states[0, -8:], f"encoder_text_tail/{number}") <= LOGITS
        assert differs(logits[0], f"label_logits/{number}") <= LOGITS


@pytest.mark.slow
def test_other_templates_give_the_official_score(folder: Path, data: dict[str, Any]) -> None:
    case = data["templates"]
    picture = Picture.open(needs(folder / case["image"]))
    question, answer = (
        case[f"{name}_template"].replace("{}", "{prompt}") for name in ("question", "answer")
    )
    with VqaScore(weights=str(folder), question=question, answer=answer) as scorer:
        [score] = scorer.score([picture], [data["texts"][case["text_id"]]])
    assert score.value == pytest.approx(case["score"], rel=0, abs=SCORE)


@pytest.mark.slow
def test_what_the_official_form_does_is_seen_in_the_scores(
    folder: Path, data: dict[str, Any], scorer: VqaScore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake that a port makes moves a score by a hundred times the tolerance, or more."""
    form, found = scorer._form, cases(folder, data)[:6]
    network, questions = form._network, [form.question(prompt) for *_, prompt in found]
    pixels = [form.prepare(picture) for _, _, picture, _ in found]

    def worst(vocabulary: int = len(form.tokenizer), asked: list[Question] = questions) -> float:
        scores = score_answers(network, pixels, asked, vocabulary)
        return max(abs(score - case["score"]) for score, (_, case, _, _) in zip(scores, found, strict=True))

    assert worst() <= SCORE
    all_rows = worst(data["checkpoint_vocab_size"])  # of the head, also those that no id has
    no_end = worst(asked=[q._replace(before=q.before[:-1]) for q in questions])  # before the picture
    yes_alone = worst(asked=[q._replace(answer=q.answer[:1]) for q in questions])
    monkeypatch.setattr(network.lm_head, "weight", network.shared.weight)  # as transformers 5 ties them
    assert min(all_rows, no_end, yes_alone, worst()) > 100 * SCORE
