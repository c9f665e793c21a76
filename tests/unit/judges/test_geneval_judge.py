"""GenEval's judge over tiny networks of the real architectures."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("open_clip", reason="needs the extra geneval")
from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.masks import decode_mask
from sar_eval.judges.geneval import GenEvalJudge, crop
from sar_eval.networks.mask2former import self_test
from sar_eval.networks.mask2former.network import Instance
from sar_eval.networks.mask2former.self_test import Comparison
from sar_eval.suites.geneval.vocabulary import CLASSES, COLORS
from sar_eval.types import Generation, Prompt


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def options(tiny_clip, tiny_detector):
    return {
        "weights": str(tiny_detector),
        "clip": str(tiny_clip["config"]),
        "clip_weights": str(tiny_clip["weights"]),
        "threshold": 0.05,
        "counting_threshold": 0.1,
        "batch_size": 2,
    }


@pytest.fixture(scope="module")
def judge(options):
    with GenEvalJudge(**options) as judge:
        yield judge


def prompt(number: int, **checks) -> Prompt:
    return Prompt(f"{number:05d}", "a photo", "colors", {"tag": "colors", **checks})


def detected(judge, image: np.ndarray) -> list[str]:
    """Classes that the tiny network detects in an image, best first."""
    return [CLASSES[instance.label] for instance in judge._detector.detect([image], 0.05)[0]]


def test_a_detected_object_gets_a_colour_and_evidence(judge) -> None:
    name = detected(judge, noise(1))[0]
    include = [{"class": name, "count": 1, "color": "red"}]
    verdict = next(
        judge.judge([(prompt(0, include=include), Generation("00000/0", 1, image=png(noise(1))))])
    )
    colored = [box for box in verdict.evidence["boxes"] if box["color"]]
    assert len(colored) == 1
    assert colored[0]["name"] == name
    assert set(colored[0]["colors"]) == set(COLORS)
    assert colored[0]["color"] == max(colored[0]["colors"], key=colored[0]["colors"].get)
    assert sum(colored[0]["colors"].values()) == pytest.approx(1, abs=1e-2)
    assert verdict.passed == (colored[0]["color"] == "red")
    assert (verdict.reason == "") == verdict.passed
    for box in verdict.evidence["boxes"]:
        assert box["score"] > 0.05
        mask = decode_mask(box["mask"])
        ys, xs = np.nonzero(mask)
        assert tuple(box["box"]) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_a_detected_class_passes_and_an_absent_one_fails(judge) -> None:
    name = detected(judge, noise(2))[0]
    absent = next(other for other in CLASSES if other not in detected(judge, noise(2)))
    items = [
        (
            prompt(i, include=[{"class": expected, "count": 1}]),
            Generation(f"{i:05d}/0", i, image=png(noise(2))),
        )
        for i, expected in enumerate((name, absent))
    ]
    present, missing = judge.judge(items)
    assert (present.passed, present.score, present.reason) == (True, 1.0, "")
    assert (missing.passed, missing.score) == (False, 0.0)
    assert missing.reason == f"expected {absent}>=1, found 0"


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_batch(judge) -> None:
    images = [noise(3), noise(4, 48, 80), noise(5), noise(6)]
    items = []
    for i, image in enumerate(images):
        names = detected(judge, image)
        include = [{"class": names[0], "count": 1, "color": COLORS[i]}]
        items.append((prompt(i, include=include), Generation(f"{i:05d}/0", i, image=png(image))))
    together = list(judge.judge(items))
    for item, verdict in zip(items, together, strict=True):
        alone = next(judge.judge([item]))
        assert (alone.passed, alone.reason) == (verdict.passed, verdict.reason)
        assert [b["box"] for b in alone.evidence["boxes"]] == [b["box"] for b in verdict.evidence["boxes"]]


def test_images_without_a_verdict_have_an_error(judge) -> None:
    include = [{"class": "dog", "count": 1}]
    blank = np.full((32, 32, 3), 7, np.uint8)
    items = [
        (prompt(0, include=include), Generation("00000/0", 0, image=b"no image")),
        (prompt(1, include=include), Generation("00001/0", 0, image=png(blank))),
        (prompt(2, include=include), Generation("00002/0", 0, error="engine fell over")),
        (replace(prompt(3), checks=None), Generation("00003/0", 0, image=png(noise(1)))),
    ]
    errors = [verdict.error for verdict in judge.judge(items)]
    assert [error.split(":")[0] for error in errors] == [
        "unreadable image",
        "blank image",
        "no image",
        "prompt '00003' has no GenEval checks (include)",
    ]
    assert list(judge.judge([])) == []


def test_crops_show_the_object_on_grey() -> None:
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[2:6, 3:9] = (200, 10, 20)
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:8] = True
    cropped = np.asarray(crop(pixels, Instance(0, 0.9, (3.0, 2.0, 9.0, 6.0), mask)))
    assert cropped.shape == (4, 6, 3)
    assert (cropped[:, :5] == (200, 10, 20)).all()
    assert (cropped[:, 5] == 0x99).all()


def test_the_version_depends_on_the_weights(options, tmp_path) -> None:
    version = GenEvalJudge(**options).version
    assert version == GenEvalJudge(**{**options, "threshold": 0.2}).version
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(b"other weights")
    assert GenEvalJudge(**{**options, "clip_weights": str(copy)}).version != version


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"treshold": 0.3}, "no option 'treshold'"),
        ({"threshold": "high"}, "must be a number"),
        ({"max_objects": 0}, "must be a whole number >= 1"),
        ({"detector": "yolo"}, "mask2former or mmdet"),
        ({"dtype": "int8"}, "float32, bfloat16 or float16"),
        ({"batch_size": 0}, "a whole number >= 1"),
        ({"weights": "absent.pth"}, "no file absent.pth"),
        ({"weights": ""}, "sar-eval fetch geneval"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(
    options, changed, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=message):
        GenEvalJudge(**{**options, **changed})


class _Entered(Exception):
    """The networks would be loaded now."""


@pytest.mark.parametrize(
    ("device", "asked", "masks", "outcome"),
    [
        ("cuda", {}, 0.5, "nothing was judged"),
        ("cuda", {}, float("inf"), "nothing was judged"),
        ("cuda", {}, 0.001, None),
        ("cuda", {"self_test": False}, 0.5, None),
        ("cpu", {}, 0.5, None),
    ],
)
def test_a_card_that_detects_otherwise_is_refused_before_anything_is_judged(
    options, monkeypatch, device: str, asked: dict[str, bool], masks: float, outcome: str | None
) -> None:
    def load(judge: GenEvalJudge) -> None:
        raise _Entered

    monkeypatch.setattr(self_test, "compare_devices", lambda weights, device: Comparison(0.0, masks))
    monkeypatch.setattr(GenEvalJudge, "_load_detector", load)
    judge = GenEvalJudge(device=device, **options, **asked)
    with pytest.raises(Incomplete if outcome else _Entered, match=outcome), judge:
        pass


def test_the_self_test_changes_no_verdict(options) -> None:
    assert "self_test" in GenEvalJudge.speed_options
    with pytest.raises(BadInput, match="self_test 3 of judge 'geneval': true or false"):
        GenEvalJudge(**options, self_test=3)
