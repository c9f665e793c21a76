"""A newcomer's scorer, one file: docs/examples/sharpness.py in Python and by the judge `score`."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sar_eval.errors import BadInput
from sar_eval.judges.score import ScoreJudge
from sar_eval.scoring import ScorerSet
from sar_eval.types import Generation, Prompt
from tests.parity_data import ROOT

SHARPNESS = f"{ROOT / 'docs' / 'examples' / 'sharpness.py'}:SCORER"


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def scene():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    return Image.fromarray(pixels)


def test_a_blurred_picture_is_less_sharp_and_a_tiny_one_is_an_error() -> None:
    dot = Image.new("L", (3, 4))
    dot.putpixel((1, 1), 10)
    pictures = [scene(), scene().filter(ImageFilter.GaussianBlur(2)), dot, Image.new("RGB", (2, 90))]
    with ScorerSet([SHARPNESS], options={"sharpness": {"scale": 2.0}}) as scorers:
        sharp, blurred, known, tiny = scorers.score(map(png, pictures), [""] * 4)
        assert scorers.versions == {"sharpness": "1+scale2.0"}
    assert sharp.scores["sharpness"] > 100 * blurred.scores["sharpness"] > 0
    # The Laplacian of the two inner pixels is -40 and 10: their variance is 625.
    assert known.scores == {"sharpness": pytest.approx(2.0 * 625)}
    assert tiny.errors == {"sharpness": "no pixel has four neighbours"}


def test_the_judge_takes_the_file_by_its_path_and_refuses_unknown_options() -> None:
    items = [
        (Prompt("p0", "a cat"), Generation("p0/0", 0, image=png(scene()))),
        (
            Prompt("p1", "a dog"),
            Generation("p1/0", 0, image=png(Image.linear_gradient("L").resize((2, 2)))),
        ),
    ]
    with ScoreJudge(scorers=[SHARPNESS, "colourfulness"], weights={"sharpness": 0.5}) as judge:
        scored, failed = judge.judge(items)
    assert scored.evidence["scores"].keys() == {"sharpness", "colourfulness"}
    assert scored.score == pytest.approx(0.5 * scored.evidence["scores"]["sharpness"])
    assert failed.score is None
    assert failed.error
    with pytest.raises(BadInput, match="does not take the options"):
        ScoreJudge(scorers=SHARPNESS, sharpness={"size": 3})
