"""Tiny random models of transformers' own classes, saved and loaded as a user's model would be."""

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the extra dpg")
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from sar_eval.answerers.transformers import TransformersAnswerer
from sar_eval.discover import load
from sar_eval.errors import BadInput, MissingExtra, UnknownName
from sar_eval.networks.vqa_transformers import VqaNetwork, find_network, network_kind

QUESTIONS = ["is there a dog ?", "is the cat left of the big red dog ?", "red ?", "is there a small cat ?"]
WORDS = [
    "yes",
    "no",
    "yes.",
    "two",
    "?",
    *sorted(set(" ".join(QUESTIONS).split()) - {"?"}),
    "answer",
    "with",
    "or",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slower with more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def image(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def scale_up(head: torch.nn.Linear, std: float = 2.0) -> None:
    """Give a head larger random weights, so that answers differ by more than rounding."""
    torch.nn.init.normal_(head.weight, std=std)


@pytest.fixture(scope="module")
def vilt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vilt")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    labels = {0: "two", 1: "yes", 2: "no"}
    config = transformers.ViltConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=64,
        patch_size=16,
        max_position_embeddings=12,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )
    torch.manual_seed(0)
    model = transformers.ViltForQuestionAnswering(config)
    scale_up(model.classifier[-1])
    model.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    images = transformers.ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16)
    transformers.ViltProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    words = [*SPECIAL, "[DEC]", "[ENC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "initializer_range": 0.2,
    }
    text = {
        **shape,
        "vocab_size": len(words),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 32,
        "bos_token_id": words.index("[DEC]"),
        "pad_token_id": 0,
        "sep_token_id": words.index("[SEP]"),
        "eos_token_id": words.index("[SEP]"),
    }
    config = transformers.BlipConfig(
        text_config=text, vision_config={**shape, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    torch.manual_seed(1)
    model = transformers.BlipForQuestionAnswering(config)
    scale_up(model.text_decoder.cls.predictions.decoder, 0.5)
    model.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    words = ["<pad>", "<unk>", "</s>", "<image>", *WORDS, "Yes", "No", "user:", "assistant:"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    fast.image_token = "<image>"
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        fast,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}"
            "<image> {% else %}user: {{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        ),
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    text = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=None,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    torch.manual_seed(2)
    model = transformers.LlavaForConditionalGeneration(config)
    scale_up(model.lm_head)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def answers(folder: Path, images, **options):
    with TransformersAnswerer(model=str(folder), **options) as answerer:
        return [list(image_answers) for image_answers in answerer.answer(images)]


@pytest.mark.parametrize("name", ["vilt", "blip", "llava"])
def test_answers_do_not_depend_on_the_batch(name: str, request) -> None:
    folder = request.getfixturevalue(name)
    images = [
        (image(0), QUESTIONS),
        (image(1, 64, 64), QUESTIONS[:1]),
        (image(2, 40, 80), QUESTIONS[1:]),
    ]
    together = answers(folder, images, batch_size=16, prompt="{question}", max_new_tokens=3)
    alone = answers(folder, images, batch_size=1, prompt="{question}", max_new_tokens=3)
    assert [len(image_answers) for image_answers in together] == [4, 1, 3]
    for single, batched in zip(chain(*alone), chain(*together), strict=True):
        assert (single.text, single.yes, single.error) == (batched.text, batched.yes, batched.error)
        assert single.soft == pytest.approx(batched.soft, abs=1e-5)
        assert 0 < single.soft < 1
    assert len({answer.soft for answer in chain(*together)}) > 4


def test_label_answers_are_those_of_the_model_class(vilt: Path) -> None:
    model = transformers.ViltForQuestionAnswering.from_pretrained(vilt).eval()
    processor = transformers.ViltProcessor.from_pretrained(vilt)
    pixels = image(3)
    [image_answers] = answers(vilt, [(pixels, QUESTIONS)])
    for question, answer in zip(QUESTIONS, image_answers, strict=True):
        with torch.inference_mode():
            inputs = processor(pixels, question, return_tensors="pt", truncation=True, max_length=12)
            two, yes, no = model(**inputs).logits[0].tolist()
        best = max((two, "two"), (yes, "yes"), (no, "no"))[1]
        assert (answer.text, answer.yes, answer.error) == (best, best == "yes", None)
        assert answer.soft == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-5)


def test_a_long_question_is_marked_as_truncated(vilt: Path, blip: Path) -> None:
    long = "is there a " + "big " * 30 + "dog ?"
    for folder in (vilt, blip):
        [[short_answer, long_answer]] = answers(folder, [(image(4), [QUESTIONS[0], long])])
        assert (short_answer.truncated, long_answer.truncated) == (False, True)
        [[longer_answer]] = answers(folder, [(image(4), [long + " red ?"])])
        assert longer_answer.text == long_answer.text
        assert longer_answer.soft == pytest.approx(long_answer.soft, abs=1e-5)


def greedy(folder: Path, pixels: np.ndarray, question: str, tokens: int) -> tuple[str, float]:
    """Greedy decoding with the model's forward, without padding or generate()."""
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.LlavaProcessor.from_pretrained(folder)
    text = f"<image> user: {question} assistant: "
    inputs = processor(images=pixels, text=text, return_tensors="pt")
    ids, generated, soft = inputs["input_ids"], [], 0.0
    vocabulary = processor.tokenizer.get_vocab()
    for step in range(tokens):
        with torch.inference_mode():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1].double()
        if step == 0:
            yes, no = (
                float(sum(logits.softmax(-1)[vocabulary[w]] for w in pair))
                for pair in (("yes", "Yes"), ("no", "No"))
            )
            soft = yes / (yes + no)
        generated.append(int(logits.argmax()))
        if generated[-1] == vocabulary["</s>"]:
            break
        ids = torch.cat([ids, torch.tensor([[generated[-1]]])], 1)
    return processor.tokenizer.decode(generated, skip_special_tokens=True).strip(), soft


def test_a_chat_model_decodes_greedily(llava: Path) -> None:
    pixels = image(5)
    [image_answers] = answers(llava, [(pixels, QUESTIONS)], max_new_tokens=3)
    for question, answer in zip(QUESTIONS, image_answers, strict=True):
        text, soft = greedy(llava, pixels, f"{question} Answer with yes or no.", 3)
        assert answer.text == text
        assert answer.soft == pytest.approx(soft, abs=1e-5)
        assert (answer.error is None) == (answer.yes is not None)


def test_generated_answers_are_those_of_the_model_class(blip: Path) -> None:
    model = transformers.BlipForQuestionAnswering.from_pretrained(blip).eval()
    processor = transformers.BlipProcessor.from_pretrained(blip)
    pixels = image(6)
    [image_answers] = answers(blip, [(pixels, QUESTIONS)], max_new_tokens=4)
    for question, answer in zip(QUESTIONS, image_answers, strict=True):
        inputs = processor(pixels, question, return_tensors="pt")
        text = processor.decode(model.generate(**inputs, max_new_tokens=4)[0], skip_special_tokens=True)
        # The class's text begins with the decoder's start token.
        assert text.removeprefix("[ENC]").removeprefix("[DEC]").strip() == answer.text
        assert (answer.error, answer.yes in (True, False)) == (None, True)


def test_the_version_depends_on_files_prompt_and_rule(vilt: Path, llava: Path, tmp_path) -> None:
    plain = TransformersAnswerer(model=str(vilt)).version
    assert plain.startswith(f"1+{vilt.name}@")
    assert plain.endswith("+word-1")
    assert TransformersAnswerer(model=str(llava)).version.endswith("+chat-1")
    assert TransformersAnswerer(model=str(vilt), batch_size=2).version == plain
    assert TransformersAnswerer(model=str(vilt), prompt="{question} Really?").version != plain
    other = tmp_path / vilt.name
    shutil.copytree(vilt, other)
    assert TransformersAnswerer(model=str(other)).version == plain
    state = load_file(other / "model.safetensors")
    state["classifier.3.bias"] += 1
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    assert TransformersAnswerer(model=str(other)).version != plain


def without(folder: Path, tmp_path: Path, name: str) -> Path:
    """A copy in which one tensor is missing."""
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy)
    state = load_file(copy / "model.safetensors")
    del state[name]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_missing_weights_are_refused(vilt: Path, tmp_path) -> None:
    broken = without(vilt, tmp_path, "classifier.3.weight")
    with pytest.raises(BadInput, match=r"lack classifier\.3\.weight \(and 0 more\)"):
        TransformersAnswerer(model=str(broken)).__enter__()


def edited(folder: Path, tmp_path: Path, **changes) -> Path:
    """A copy with another configuration."""
    copy = tmp_path / "edited"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_model_of_another_kind_is_refused(vilt: Path, tmp_path) -> None:
    folder = edited(vilt, tmp_path, architectures=["BertModel"])
    with pytest.raises(BadInput, match=r"lists 'BertModel' of .* neither under visual question answering"):
        TransformersAnswerer(model=str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(BadInput, match="no readable configuration"):
        TransformersAnswerer(model=str(folder))


def test_labels_without_yes_are_refused(vilt: Path, tmp_path) -> None:
    folder = edited(vilt, tmp_path, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    with pytest.raises(BadInput, match="have no yes and no"):
        TransformersAnswerer(model=str(folder)).__enter__()


def test_a_chat_model_needs_a_template_and_weights(llava: Path, tmp_path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(llava, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="has no chat template"):
        TransformersAnswerer(model=str(bare)).__enter__()
    (bare / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="transformers cannot load"):
        TransformersAnswerer(model=str(bare)).__enter__()


def test_first_token_ids_of_a_word_in_pieces() -> None:
    from sar_eval.networks.vqa_transformers import _first_token_ids

    pieces = ["<unk>", "y", "##es", "no", "Yes", "_"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert _first_token_ids(fast, "yes") == {1, 4}
    assert _first_token_ids(fast, "no") == {3}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": ""}, BadInput, "needs a network"),
        ({"model": "no such folder"}, UnknownName, "neither a folder nor a hub name"),
        ({"revision": "main"}, BadInput, "is a folder and has no revision 'main'"),
        ({"revision": 3}, BadInput, "a branch, tag or commit"),
        ({"dtype": "int8"}, BadInput, "float32, bfloat16 or float16"),
        ({"batch_size": 0}, BadInput, "batch_size 0"),
        ({"max_new_tokens": True}, BadInput, "max_new_tokens True"),
        ({"prompt": "what?"}, BadInput, "a text with {question} in it"),
        ({"modle": "x"}, BadInput, "has no option 'modle'; known are model, revision"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(vilt: Path, changed, error, message: str) -> None:
    with pytest.raises(error, match=message):
        TransformersAnswerer(**{"model": str(vilt), **changed})


def test_a_hub_name_resolves_to_its_cached_commit_offline(monkeypatch, vilt: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="'org/vilt': it is no folder, and nothing of it is cached"):
        TransformersAnswerer(model="org/vilt")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--org--vilt"
    shutil.copytree(vilt, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    for options in ({}, {"revision": commit}):
        assert f"1+vilt@{commit}+" in TransformersAnswerer(model="org/vilt", **options).version


def test_a_missing_package_is_named(monkeypatch, vilt: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"answerer 'transformers' needs: pip install 'sar-eval\[dpg\]'"):
        load("answerers", "transformers")(model=str(vilt))


def test_kinds_and_digests(vilt: Path, blip: Path, llava: Path) -> None:
    assert [network_kind(folder) for folder in (vilt, blip, llava)] == ["vqa", "vqa", "chat"]
    assert len({find_network(str(folder))[1] for folder in (vilt, blip, llava)}) == 3
    network = VqaNetwork(llava, device="cpu", dtype="bfloat16", max_new_tokens=2)
    [output] = network.answer([image(7)], [QUESTIONS[0]])
    assert 0 < output.yes + output.no < 1
