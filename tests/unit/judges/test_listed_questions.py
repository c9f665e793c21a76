"""Questions that list their answers, in the judge `vqa`: evidence, scores, and answerers that cannot."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.answerers.shapes import ShapesAnswerer
from sar_eval.answers import Asked, Listed
from sar_eval.errors import BadInput
from sar_eval.judges.vqa import VqaJudge
from sar_eval.suites.dpg.questions import Question, read_questions, write_questions
from sar_eval.types import Answer, Generation, Prompt, Verdict
from tests.unit.judges.vqa_answerers import Reading

YES, NO = ("Yes", "yes"), ("No", "no")


class Listing(Reading):
    """Answers every question that lists its answers with the numbers in its text."""

    def ask(self, images) -> Iterator[Sequence[Answer]]:
        for pixels, questions in images:
            plain = next(self.answer([(pixels, [asked.text for asked in questions])]))
            yield [_listed(asked) or answer for asked, answer in zip(questions, plain, strict=True)]


def _listed(asked: Asked) -> Answer | None:
    if not asked.expect:
        return None
    assert asked.are_pieces is ("ratio" in asked.text)
    mass, distinct, against = map(float, asked.text.split()[-3:])
    return Answer("four", distinct > against, listed=Listed(mass, distinct, against))


LISTING = Listing


def judged(*questions: Question, answerer: str = f"{Path(__file__)}:LISTING") -> Verdict:
    buffer, pixels = io.BytesIO(), np.zeros((8, 8, 3), np.uint8)
    pixels[1:, :, 0] = 200
    Image.fromarray(pixels).save(buffer, "PNG")
    prompt = Prompt("p", "an image", checks=write_questions(questions))
    with VqaJudge(answerer=answerer) as judge:
        [verdict] = judge.judge([(prompt, Generation("p/0", 0, image=buffer.getvalue()))])
    return verdict


def test_the_score_is_the_mean_of_what_each_question_counts() -> None:
    verdict = judged(
        Question(1, "red?"),
        Question(2, "0.9 0.5 0.1", expect=YES, against=NO),
        Question(3, "ratio 0.3 0.3 0.1", (2,), expect=YES, against=NO, is_ratio=True),
    )
    assert verdict.score == pytest.approx((1 + 0.5 + 0.3 / 0.4) / 3)
    plain, listed, _ = verdict.evidence["questions"]
    assert "mass" not in plain
    numbers = {"mass": 0.9, "distinct": 0.5, "against": 0.1, "floor": None, "unlisted": 0}
    assert {name: listed[name] for name in numbers} == numbers
    assert (listed["expect"], listed["answer"], listed["yes"]) == (["Yes", "yes"], "four", True)


def test_a_share_of_nothing_is_an_error_and_a_probability_of_0_is_a_score() -> None:
    verdict = judged(Question(1, "ratio 0 0 0", expect=YES, against=NO, is_ratio=True))
    assert verdict.score is None
    assert "none of the listed answers has a probability: 'four'" in verdict.error
    assert judged(Question(1, "0 0 0", expect=YES, against=NO)).score == 0


def test_an_answerer_without_probabilities_is_refused() -> None:
    assert not hasattr(ShapesAnswerer, "ask")
    with pytest.raises(BadInput, match=r"answerer 'shapes' gives no probabilities .*answerer=transformers"):
        judged(Question(1, "Is there a circle?", expect=YES), answerer="shapes")


def test_questions_keep_their_listings_and_others_stay_as_they_were() -> None:
    plain = Question(1, "red?", (), "entity")
    listing = Question(2, "how many?", expect=("four", "4"), against=("5",), is_ratio=True)
    checks = write_questions([plain, listing])
    assert set(checks["questions"][0]) == {"id", "text", "parents", "category", "detail", "statement"}
    assert read_questions(checks) == (plain, listing)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expect": "Yes"}, "expect must be a list of at most 200"),
        ({"expect": ["Yes", ""]}, "'' is no spelling"),
        ({"expect": [" "]}, "' ' is no spelling"),
        ({"expect": ["y" * 101]}, "is no spelling"),
        ({"against": [4]}, "against: 4 is no spelling"),
        ({"expect": ["Yes"], "is_ratio": True}, "needs both expect and against"),
        ({"expect": ["Yes"], "against": ["No"], "is_ratio": 1}, "must be true or false"),
    ],
)
def test_listings_of_another_kind_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_questions({"questions": [{"id": 1, "text": "red?"} | wrong]})
