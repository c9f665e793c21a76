"""Several scorers over one decoding: order, sharing, errors of single pictures, names and options."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput, UnknownName
from sar_eval.images.picture import Picture
from sar_eval.scoring import ScorerSet, label, read_names
from tests import counting_scorers

FILE = Path(counting_scorers.__file__)
MEAN, PICKY = f"{FILE}:MEAN", f"{FILE}:PICKY"
LAZY = """
from tests.counting_scorers import Mean

class Lazy(Mean):
    def score(self, pictures, prompts):
        yield next(super().score(pictures, prompts))
"""


def png(level: int, size: tuple[int, int] = (4, 3), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.full((size[1], size[0]), level, np.uint8))
    image.putpixel((0, 0), 255 - level)
    image.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def test_many_pictures_come_in_order_whatever_the_batch() -> None:
    levels = list(range(0, 200, 7))
    by_size = []
    for batch_size in (1, 4, 1000):
        with ScorerSet(["colourfulness", MEAN], batch_size=batch_size) as scorers:
            found = list(scorers.score(map(png, levels), ["" for _ in levels]))
        by_size.append([scored.scores["counting_scorers"] for scored in found])
    assert by_size[0] == by_size[1] == by_size[2] == sorted(by_size[0])


def test_pictures_are_not_all_decoded_at_once() -> None:
    decoded = []

    def pictures():
        for level in range(100):
            decoded.append(level)
            yield png(level)

    with ScorerSet([MEAN], batch_size=2) as scorers:
        next(scorers.score(pictures(), ("" for _ in range(100))))
    assert len(decoded) <= 8


def test_scorers_that_share_a_network_share_its_forward(tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("from tests.counting_scorers import Mean, PICKY\nMEAN = Mean\n")
    loads, pictures = counting_scorers.MeanNetwork.loads, counting_scorers.MeanNetwork.pictures
    path = tmp_path / "third.py"
    path.write_text("from tests.counting_scorers import Mean as MEAN\n")
    with ScorerSet([f"{other}:MEAN", f"{path}:MEAN"]) as scorers:
        found = list(scorers.score([png(10), png(20), png(30)], ["", "", ""]))
    assert all(len(set(scored.scores.values())) == 1 and len(scored.scores) == 2 for scored in found)
    assert counting_scorers.MeanNetwork.loads == loads + 1
    assert counting_scorers.MeanNetwork.pictures == pictures + 3


def test_a_failure_is_of_its_picture_and_its_scorer(tmp_path: Path) -> None:
    sources = [png(1), b"not a picture", png(3), tmp_path / "none.png", png(5), png(6)]
    prompts = ["yes", "yes", "no", "yes", "nan", "yes " * 100]
    with ScorerSet(["colourfulness", PICKY], batch_size=2) as scorers:
        found = list(scorers.score(sources, prompts))
    assert [set(scored.errors) for scored in found] == [
        set(),
        {""},
        {"counting_scorers"},
        {""},
        {"counting_scorers"},
        set(),
    ]
    assert all("colourfulness" in found[i].scores for i in (0, 2, 4, 5))
    assert found[5].truncated == ["counting_scorers"]
    assert found[0].more == {"counting_scorers": {"spread": 1.5}}
    assert "nan" in found[4].errors["counting_scorers"]
    assert str(tmp_path / "none.png") in found[3].errors[""]


def misbehaving(
    tmp_path: Path, score: str, prepare: str = "return None", start: str = "return self"
) -> str:
    """The name of a scorer whose methods have these bodies."""
    path = tmp_path / "odd.py"
    path.write_text(
        "import numpy as np\nfrom sar_eval.types import Score\nfrom tests.counting_scorers import FACTS\n"
        "class Odd:\n    variants, facts, version = {'': FACTS}, FACTS, '1'\n"
        f"    def __init__(self, **options): pass\n    def __enter__(self): {start}\n"
        f"    def __exit__(self, *error): pass\n    def prepare(self, picture): {prepare}\n"
        f"    def score(self, pictures, prompts): {score}\n"
    )
    return f"{path}:Odd"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("None", "NoneType instead of Score"),
        ("1.0", "float instead of Score"),
        ("Score('0.5')", "number is '0.5'"),
        ("Score(10**400)", "number is 1000"),
        ("Score(np.ones(2))", "number is array"),
        ("Score(float('-inf'))", "number is -inf"),
        ("Score(0.5, error='why')", "why"),
        ("Score(0.5, more={'spread': float('nan')})", "further numbers are"),
        ("Score(0.5, more=[1, 2])", "further numbers are"),
    ],
)
def test_what_is_no_score_is_an_error_of_its_picture(tmp_path: Path, given: str, message: str) -> None:
    odd = misbehaving(tmp_path, f"return [{given} if q == 'odd' else Score(2.0) for q in prompts]")
    with ScorerSet([odd, "colourfulness"]) as scorers:
        found = list(scorers.score([png(1), png(2), png(3)], ["a", "odd", "c"]))
    assert message in found[1].errors["odd"]
    assert [scored.scores.get("odd") for scored in found] == [2.0, None, 2.0]
    assert all("colourfulness" in scored.scores for scored in found)


def test_numbers_of_numpy_are_plain_numbers_in_evidence(tmp_path: Path) -> None:
    odd = misbehaving(tmp_path, "return [Score(np.float32(1.5), more={'n': np.int64(3)})]")
    with ScorerSet([odd]) as scorers:
        (found,) = scorers.score([png(1)], [""])
    assert json.dumps([found.scores, found.more]) == '[{"odd": 1.5}, {"odd": {"n": 3.0}}]'


@pytest.mark.parametrize(
    ("score", "prepare", "message"),
    [
        ("return [Score(1 / len(q)) for q in prompts]", "return None", "ZeroDivisionError"),
        ("return [Score(2.0) for q in prompts if q]", "return None", "0 scores for 1 pictures"),
        (
            "return [Score(2.0) for _ in pictures]",
            "assert picture.image.getpixel((1, 1)) != (2, 2, 2), 'no'",
            "no",
        ),
    ],
)
def test_a_scorer_that_fails_on_a_picture_scores_the_others(
    tmp_path: Path, score: str, prepare: str, message: str
) -> None:
    with ScorerSet(["colourfulness", misbehaving(tmp_path, score, prepare)]) as scorers:
        found = list(scorers.score([png(1), png(2), png(3)], ["a", "", "c"]))
    assert message in found[1].errors["odd"]
    assert [set(scored.errors) for scored in found] == [set(), {"odd"}, set()]
    assert all("colourfulness" in scored.scores for scored in found)


@pytest.mark.parametrize("start", ["raise ValueError('boom')", "raise SystemExit(0)"])
def test_a_scorer_that_cannot_start_is_named(tmp_path: Path, start: str) -> None:
    with pytest.raises(BadInput, match="scorer 'odd' cannot start"):
        ScorerSet([misbehaving(tmp_path, "return []", start=start)]).__enter__()


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8)]
)
def test_arrays_that_are_no_pictures_are_errors_of_theirs(pixels: np.ndarray) -> None:
    with ScorerSet([MEAN]) as scorers:
        found = list(scorers.score([png(1), pixels], ["", ""]))
    assert not found[0].errors
    assert "picture" in found[1].errors[""] or "pixels" in found[1].errors[""]


def test_a_scorer_that_needs_a_prompt_gets_none_scored_without() -> None:
    with ScorerSet([PICKY]) as scorers:
        (found,) = scorers.score([png(1)], ["  "])
    assert found.errors == {"counting_scorers": "the picture has no prompt"}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("yes \ud83d", "half a character"), (None, "NoneType"), ("yes" * 400_000, "at most")],
)
def test_a_prompt_that_no_tokenizer_reads_is_an_error_of_its_picture(prompt: str, message: str) -> None:
    with ScorerSet([PICKY]) as scorers:
        found = list(scorers.score([png(1), png(2)], [prompt, "yes"]))
    assert message in found[0].errors["counting_scorers"]
    assert not found[1].errors


def test_as_many_prompts_as_pictures() -> None:
    with ScorerSet([MEAN]) as scorers, pytest.raises(ValueError, match="shorter"):
        list(scorers.score([png(1), png(2)], [""]))


def test_variants_and_options_by_name() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0, 0] = 200
    with ScorerSet([MEAN], options={"counting_scorers": {"plus": 0.5}}) as scorers:
        (found,) = scorers.score([pixels], [""])
    assert found.scores["counting_scorers"] == pytest.approx(200 / 12 + 0.5)
    assert scorers.versions == {"counting_scorers": "1+0.5"}


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "none"),
        (["colourfulness", "colourfulness"], {}, "each once"),
        (["colourfulness:hot"], {}, "variant"),
        (["colourfulness"], {"hps": {}}, "hps"),
        (["colourfulness"], {"colourfulness": 3}, "must be a table"),
        (["colourfulness"], {"colourfulness": {"resize": 1}}, "does not take"),
    ],
)
def test_wrong_names_and_options(names: list[str], options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ScorerSet(names, options=options)


def test_an_unknown_scorer_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="colourfulness"):
        ScorerSet(["colorfulness"])


def test_names_from_the_command_line_and_recipes() -> None:
    assert read_names("hps, clip:hessel", "x") == read_names(["hps", "clip:hessel"], "x")
    assert label("clip:hessel") == "clip:hessel"
    assert label("a/b/mine.py:SCORER") == "mine"
    for wrong in (3, ["hps", 3], "hps,,clip", [""]):
        with pytest.raises(BadInput, match="names"):
            read_names(wrong, "x")


def test_a_picture_keeps_its_mode_and_its_orientation() -> None:
    buffer = io.BytesIO()
    image = Image.new("RGB", (6, 4), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", exif=exif)
    assert Picture.from_bytes(buffer.getvalue()).image.size == (6, 4)
    for mode in ("P", "L", "RGBA", "LA", "RGB", "1"):
        picture = Picture.from_bytes(png(40, mode=mode))
        assert picture.image.mode == mode
        assert picture.rgb.mode == "RGB"
    buffer = io.BytesIO()
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) * 257 * 40).save(buffer, "PNG")
    assert np.asarray(Picture.from_bytes(buffer.getvalue()).image).ravel().tolist() == [
        0,
        40,
        80,
        120,
        160,
        200,
    ]


def test_colourfulness_is_the_papers_formula() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8).repeat(3, 2)
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = (255, 0, 0)  # rg is 255 in one half, yb 127.5
    with ScorerSet(["colourfulness"]) as scorers:
        scores = [s.scores["colourfulness"] for s in scorers.score([grey, half], ["", ""])]
    assert scores[0] == 0
    assert scores[1] == pytest.approx(1.3 * np.hypot(127.5, 63.75))


def test_what_has_no_forms_is_no_scorer() -> None:
    with pytest.raises(BadInput, match="MeanNetwork is no scorer: it has no table `variants`"):
        ScorerSet([f"{FILE}:MeanNetwork"])
