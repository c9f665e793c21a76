"""The judge `rubric` with a tiny chat model of transformers on this machine."""

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the extra dpg")
import torch
import transformers
from PIL import Image
from test_vqa_transformers import QUESTIONS, greedy, image, llava, one_thread, vilt

from sar_eval.errors import BadInput
from sar_eval.judges.rubric import RubricJudge
from sar_eval.types import Generation, Prompt, Verdict

fixtures = (llava, one_thread, vilt)
TEXT = {"backend": "transformers", "template": "{prompt}", "reader": "text", "against": "wanted"}


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def judge(folder: Path, images: list[np.ndarray], **options) -> list[Verdict]:
    """Verdicts on each picture with the question of its number."""
    items = [
        (
            Prompt(f"p{i}", QUESTIONS[i], checks={"wanted": "yes"}),
            Generation(f"p{i}/0", 0, image=encoded(p)),
        )
        for i, p in enumerate(images)
    ]
    with RubricJudge(**{**TEXT, "model": str(folder), "max_tokens": 4, **options}) as rubric:
        return sorted(rubric.judge(items), key=lambda verdict: verdict.key)


def test_replies_are_the_network_s_own(llava: Path) -> None:
    images = [image(i) for i in range(3)]
    verdicts = judge(llava, images, batch_size=2)
    expected = [greedy(llava, p, QUESTIONS[i], 4)[0] for i, p in enumerate(images)]
    assert [v.evidence["replies"] for v in verdicts] == [[text] for text in expected]
    assert all(v.score is not None and v.evidence["tries"] == 1 for v in verdicts)
    assert [v.evidence for v in judge(llava, images, batch_size=1)] == [v.evidence for v in verdicts]


def test_system_text_and_order_are_the_conversation_s(llava: Path) -> None:
    pixels = image(4)
    [verdict] = judge(llava, [pixels], system="is the big cat", order="text-image")
    processor = transformers.LlavaProcessor.from_pretrained(llava)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(llava).eval()
    text = f"user: is the big cat user: {QUESTIONS[0]} <image> assistant: "
    inputs = processor(images=Image.fromarray(pixels), text=text, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert verdict.evidence["replies"] == [processor.decode(ids, skip_special_tokens=True).strip()]


def test_a_repetition_penalty_reaches_the_network(llava: Path) -> None:
    options = {"max_tokens": 12}
    [plain] = judge(llava, [image(5)], **options)
    [penalised] = judge(llava, [image(5)], extra_body={"repetition_penalty": 1e6}, **options)
    words = penalised.evidence["replies"][0].split()
    assert penalised.evidence["replies"] != plain.evidence["replies"]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "backend 'transformers' needs temperature 0 and max_tokens"),
        ({"max_tokens": 0}, "backend 'transformers' needs temperature 0 and max_tokens"),
        (
            {"extra_body": {"top_k": 3}},
            r"extra_body\.top_k of judge 'rubric': backend 'transformers' takes",
        ),
        ({"extra_body": {"chat_template_kwargs": 3}}, r"extra_body\.chat_template_kwargs of .*: a table"),
        ({"url": "http://localhost/v1"}, "with backend 'transformers' has no option 'url'"),
        ({"model": ""}, "needs a network"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_options_that_a_network_cannot_follow(llava: Path, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RubricJudge(**{**TEXT, "model": str(llava), **options})


def test_a_network_of_another_kind_is_refused(vilt: Path) -> None:
    with pytest.raises(BadInput, match="is no chat model, which a rubric needs"):
        RubricJudge(**{**TEXT, "model": str(vilt)})
