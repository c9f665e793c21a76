"""`doctor scorers`: weights that are there give published pictures their published scores again."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.stages.anchors import ANCHORS, Anchor, read_anchors
from sar_eval.stages.check_scorers import check_scorers
from sar_eval.tensors.remote_file import RemoteFile
from sar_eval.tensors.weight_files import read_tensors
from tests.parity_data import needs

WEIGHT = [0.5, -0.25, 1.5]
# A scorer of a user's own: a linear layer on the mean colour, and a bias that an option chooses.
SCORER = """
import numpy as np
from sar_eval.tensors.published_weights import find_weights
from sar_eval.tensors.weight_files import read_tensors
from sar_eval.types import Score, ScorerFacts

class Linear:
    variants = {"": ScorerFacts("points", None, None, True, "MIT", ("hps-v2.1",))}
    version = "1"

    def __init__(self, variant="", device="cpu", dtype="float32", bias="none"):
        self.variant, self.facts = variant, self.variants[variant]
        self.bias = {"none": 0.0, "one": 1.0}[bias]
        self.path = find_weights("hps-v2.1")

    def __enter__(self):
        self.weight = read_tensors(self.path)["weight"].numpy()
        return self

    def __exit__(self, *error):
        del self.weight

    def score(self, pictures, prompts):
        for picture, prompt in zip(pictures, prompts, strict=True):
            colour = np.asarray(picture.rgb, np.float64).mean((0, 1)) / 255
            yield Score(float(self.weight @ colour) + self.bias + len(prompt))
"""
PROMPT = "a gradient"


@pytest.fixture
def scorer(tmp_path: Path) -> str:
    """The name of a scorer in a file."""
    (tmp_path / "linear.py").write_text(SCORER)
    return f"{tmp_path}/linear.py:Linear"


@pytest.fixture
def picture() -> tuple[bytes, float]:
    """A picture as a PNG file, and its score without a bias."""
    pixels = np.arange(32 * 40 * 3, dtype=np.uint8).reshape(32, 40, 3)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue(), float(np.dot(WEIGHT, pixels.mean((0, 1)) / 255)) + len(PROMPT)


def fetch_weights(server, sar_eval_here) -> None:
    data = io.BytesIO()
    torch.save({"weight": torch.tensor(WEIGHT, dtype=torch.float64), "unused": torch.zeros(3000)}, data)
    server.body = data.getvalue()
    assert sar_eval_here("fetch", "scorers", "hps-v2.1")[0] == 0


def anchors(value: float, **options) -> list[Anchor]:
    remote = RemoteFile("anchors/test/one.png", "https://example.org/pictures/one.png", "", "a picture")
    return [Anchor("linear", remote, PROMPT, value, 1e-6, "a test", **options)]


def test_the_published_score_comes_out_again(server, sar_eval_here, scorer, picture, tmp_path) -> None:
    fetch_weights(server, sar_eval_here)
    server.body, value = picture
    (found,) = check_scorers([scorer], anchors(value))
    assert found.ok is True
    assert found.ours == pytest.approx(value, abs=1e-12)
    assert found.picture == "one.png"
    assert "(a test): off by" in found.detail
    assert server.requests[-1][0] == "/pictures/one.png"
    assert (tmp_path / "cache" / "anchors" / "test" / "one.png").read_bytes() == server.body
    (deviates,) = check_scorers([scorer], anchors(value + 1e-3))
    assert deviates.ok is False
    assert "off by 1.0e-03 of 1e-06" in deviates.detail


def test_one_of_several_forms_must_fit(server, sar_eval_here, scorer, picture) -> None:
    fetch_weights(server, sar_eval_here)
    server.body, value = picture
    forms = ({"bias": "none"}, {"bias": "one"})
    (found,) = check_scorers([scorer], anchors(value + 1, forms=forms))
    assert (found.ok, ", bias one;" in found.detail) == (True, True)
    (found,) = check_scorers([scorer], anchors(value + 0.4, forms=forms))
    assert (found.ok, ", bias none;" in found.detail) == (False, True)


def test_missing_weights_and_pictures_are_no_deviation(
    server, sar_eval_here, scorer, picture, monkeypatch
) -> None:
    (found,) = check_scorers([scorer], anchors(1.0))
    assert found.ok is None
    assert found.detail == f"no hps-v2.1 (about 1.97 GB): `sar-eval fetch scorers {scorer}`"
    fetch_weights(server, sar_eval_here)
    server.status = [404]
    (found,) = check_scorers([scorer], anchors(1.0))
    assert (found.ok, found.detail.startswith("no picture: ")) == (None, True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = check_scorers([scorer], anchors(1.0))
    assert found.ok is None
    assert "offline, and" in found.detail


def test_the_command_and_its_exit_codes(server, sar_eval_here, scorer, picture, tmp_path) -> None:
    data, value = picture
    (tmp_path / "one.png").write_bytes(data)
    row = {"scorer": "linear", "image": "one.png", "prompt": PROMPT, "score": value, "tolerance": 1e-6}
    table = tmp_path / "official.jsonl"
    table.write_text(json.dumps(row) + "\n")
    command = ("doctor", "scorers", scorer, "--reference", table)
    code, output = sar_eval_here(*command)
    assert code == 3, output
    assert output.startswith(f"-     {scorer}")
    assert "error: not checked, as something is missing" in output
    fetch_weights(server, sar_eval_here)
    code, output = sar_eval_here(*command)
    assert code == 0, output
    assert output.startswith(f"ok    {scorer}")
    code, output = sar_eval_here(*command, "--json")
    (row_found,) = json.loads(output)
    assert row_found["published"] == value
    table.write_text(json.dumps(row | {"score": value - 0.5}) + "\n")
    code, output = sar_eval_here(*command)
    assert code == 1, output
    assert output.startswith("FAIL")
    assert f"error: failed checks: {scorer} one.png" in output


def test_a_scorer_that_cannot_be_made_fails(server, sar_eval_here, scorer, picture) -> None:
    fetch_weights(server, sar_eval_here)
    server.body, value = picture
    cached = next(check_scorers([scorer], anchors(value)))
    assert cached.ok
    (found,) = check_scorers([scorer], anchors(value, forms=({"size": 3},)))
    assert found.ok is False
    assert "does not take the options" in found.detail


def test_scorers_without_anchors_are_ready(sar_eval_here, server) -> None:
    code, output = sar_eval_here("doctor", "scorers", "colourfulness")
    assert (code, "needs no weights that are fetched; no published score to compare with" in output) == (
        0,
        True,
    )


def test_scores_of_no_scorer_are_told(sar_eval_here, server, tmp_path) -> None:
    (tmp_path / "table.jsonl").write_text('{"scorer": "colorfulness", "image": "x.png", "score": 1.0}')
    code, output = sar_eval_here("doctor", "scorers", "--reference", tmp_path / "table.jsonl")
    assert code == 3
    assert "-     colorfulness" in output
    assert "scores are given for it, but there is no scorer of that name" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dpg", "hps"), "only `doctor scorers` takes names: leave out hps"),
        (("scorers", "--weights", "."), "--weights is for dpg"),
        (("scorers", "colourfulnes"), "did you mean 'colourfulness'?"),
        (("scorers", "--reference", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(sar_eval_here, server, words, message) -> None:
    code, output = sar_eval_here("doctor", *words)
    assert code == 2
    assert message in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has no line"),
        ('{"scorer": "hps"}', ":1: .*image"),
        ("{", ":1"),
        ('{"scorer": 1}', ":1: scorer"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path, line, message) -> None:
    (tmp_path / "table.jsonl").write_text(line)
    with pytest.raises(BadInput, match=message):
        read_anchors(tmp_path / "table.jsonl")


def test_the_published_anchors_are_pinned() -> None:
    assert [anchor.value for anchor in ANCHORS if anchor.scorer == "imagereward"] == [
        *(0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492)
    ]
    for anchor in ANCHORS:
        assert isinstance(anchor.picture, RemoteFile)
        commit = anchor.picture.url.split("/")[5]
        assert len(commit) == 40
        assert anchor.picture.name.startswith("anchors/")


@pytest.mark.slow
def test_a_real_scorer_gives_the_official_scores(
    server, sar_eval_here, parity, tmp_path, one_thread
) -> None:
    """ImageReward's official answers on tiny weights, from where the real ones would lie."""
    data = needs(parity / "imagereward")
    folder = tmp_path / "cache" / "imagereward"
    shutil.copytree(data, folder)
    if not (folder / "ImageReward.pt").is_file():
        torch.save(read_tensors(data / "ImageReward.safetensors"), folder / "ImageReward.pt")
    reference = json.loads((data / "cases.json").read_text())
    texts = {name: text["text"] for name, text in reference["texts"].items()}
    rows = [
        {
            "scorer": "imagereward",
            "image": f"imagereward/{case['image']}",
            "prompt": texts[case["text_id"]],
            "score": case["score"],
            "tolerance": 2e-5,
        }
        for case in reference["cases"]
        if (data / case["image"]).is_file() and texts[case["text_id"]].strip()
    ]
    table = tmp_path / "cache" / "official.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    code, output = sar_eval_here("doctor", "scorers", "imagereward", "--reference", table, "--json")
    assert code == 0, output
    found, _ = json.JSONDecoder().raw_decode(output, output.index("[\n"))
    assert [row["ok"] for row in found] == [True] * 4
