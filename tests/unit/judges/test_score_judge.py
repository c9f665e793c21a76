"""The judge `score`: which number is the verdict, evidence, errors, digests."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.judges.score import ScoreJudge
from sar_eval.spec import code_files, without
from sar_eval.types import Generation, Prompt
from tests import counting_scorers

FILE = Path(counting_scorers.__file__)
MEAN, PICKY = f"{FILE}:MEAN", f"{FILE}:PICKY"


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def judge(prompts: list[Prompt], images: list[bytes], **options):
    items = [(p, Generation(f"{p.id}/0", 0, image=i)) for p, i in zip(prompts, images, strict=True)]
    with ScoreJudge(**options) as score_judge:
        return list(score_judge.judge(items))


def test_the_score_is_the_first_another_or_a_sum() -> None:
    prompts, images = [Prompt("a", "yes"), Prompt("b", "yes")], [picture(0), picture(1)]
    names = ["colourfulness", MEAN]
    first = judge(prompts, images, scorers=names)
    other = judge(prompts, images, scorers=",".join(names), score="counting_scorers")
    both = judge(prompts, images, scorers=names, weights={"colourfulness": 2, "counting_scorers": -0.5})
    for a, b, c in zip(first, other, both, strict=True):
        scores = a.evidence["scores"]
        assert a.evidence == b.evidence == c.evidence
        assert a.score == scores["colourfulness"]
        assert b.score == scores["counting_scorers"]
        assert c.score == pytest.approx(2 * scores["colourfulness"] - 0.5 * scores["counting_scorers"])
        assert a.evidence["versions"] == {"colourfulness": "1", "counting_scorers": "1+0.0"}


def test_an_image_without_one_of_the_numbers_has_no_score_but_keeps_the_others() -> None:
    prompts = [Prompt("a", "no"), Prompt("b", "yes"), Prompt("c", "x.png", checks={"prompt": False})]
    found = judge(prompts, [picture(0), b"GIF89a", picture(2)], scorers=["colourfulness", PICKY])
    assert [verdict.score for verdict in found] == [None, None, None]
    assert found[0].error == "counting_scorers: no yes in the prompt"
    assert found[0].evidence["scores"].keys() == {"colourfulness"}
    assert "GIF" in str(found[1].error)
    assert "no prompt" in str(found[2].error)


def test_a_blank_image_is_an_error_as_of_other_judges() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), "blue").save(buffer, "PNG")
    (found,) = judge([Prompt("a", "yes")], [buffer.getvalue()], scorers="colourfulness")
    assert found.error == "blank image"
    assert found.evidence is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no scorers"),
        ({"scorers": "colourfulness", "score": "hps"}, "no scorer 'hps'"),
        ({"scorers": "colourfulness", "weights": {"hps": 1}}, "no scorer 'hps'"),
        ({"scorers": "colourfulness", "weights": {"colourfulness": "1"}}, "of a usual size"),
        ({"scorers": "colourfulness", "score": "colourfulness", "weights": {"colourfulness": 1}}, "either"),
        *(
            ({"scorers": "colourfulness", "weights": weights}, "a table of numbers")
            for weights in (0, 3, [], {}, "", "colourfulness")
        ),
        *(
            ({"scorers": "colourfulness", "weights": {"colourfulness": weight}}, "of a usual size")
            for weight in (float("nan"), float("inf"), 1e308, 10**400, True, None, [1])
        ),
        ({"scorers": "colourfulness", "weights": {"colourfulness": 0}}, "all 0"),
        ({"scorers": "colourfulness", "images_at_once": "x"}, "images_at_once 'x'"),
        ({"scorers": "colourfulness", "dtype": "int8"}, "dtype"),
        ({"scorers": "colourfulness", "images_at_once": 0}, "whole number"),
        ({"scorers": "colourfulness", "threshold": 1}, "threshold"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ScoreJudge(**options)


def test_paths_of_a_scorers_weights_are_in_no_digest_and_its_options_are() -> None:
    made = [
        ScoreJudge(scorers=[MEAN], counting_scorers={"plus": plus, "weights": path})
        for plus, path in ((0.0, "a"), (0.0, "b"), (1.0, "a"))
    ]
    assert made[0].path_options == ("counting_scorers.weights",)
    left = [
        without({"counting_scorers": {"plus": plus, "weights": path}}, made[0].path_options)
        for plus, path in ((0.0, "a"), (0.0, "b"))
    ]
    assert left[0] == left[1] == {"counting_scorers": {"plus": 0.0}}
    assert made[0].version == made[1].version != made[2].version


def test_scorers_in_files_are_code_that_a_run_folder_may_not_start() -> None:
    found = code_files({"judge": "score"}, {"scorers": f"hps, {MEAN}"})
    assert list(found.values()) == [MEAN]
    assert code_files({}, {"scorers": ["hps", PICKY], "answerer": "x.py:A"}).keys() == {
        "answerer",
        f"scorer {PICKY}",
    }


@pytest.mark.parametrize("scorers", [3, 1.5, True, None, {"hps": 1}, [3, None], ["hps,x.py:A"]])
def test_what_is_no_list_of_scorers_names_no_code_but_that_in_it(scorers: object) -> None:
    found = code_files({}, {"scorers": scorers})
    assert list(found.values()) == (["x.py:A"] if scorers == ["hps,x.py:A"] else [])
