"""mPLUG on tiny random checkpoints: strict loading, the cached conversion, and answers."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval import discover
from sar_eval.answerers.mplug import MplugAnswerer
from sar_eval.errors import BadInput
from sar_eval.networks.mplug.shape import read_shape
from sar_eval.networks.mplug.tokenizer import MplugTokenizer
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import (
    DROPPED,
    compare_tensors,
    expected_counts,
    read_state,
    read_weights,
)
from sar_eval.types import Answer
from tests.mplug_files import write_tiny_mplug

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = ["Is there a dog?", "Is the car red?", "Are there two apples?", "Is the circle left of it?"]
LONG = "Is the small old house behind the big tree " * 4
HEAD = "text_decoder.cls.predictions.decoder.weight"
NORM = "visn_layer_norm.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_tiny_mplug(tmp_path / "mplug")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    weights = write_tiny_mplug(tmp_path_factory.mktemp("weights") / "mplug")
    with MplugAnswerer(weights=str(weights), batch_size=2) as answerer:
        yield answerer


def images(number: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(48, 48), (64, 40), (20, 90)]
    coarse = [Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8)) for _ in range(number)]
    return [np.asarray(image.resize(sizes[n % 3])) for n, image in enumerate(coarse)]


def change(folder: Path, edit) -> None:
    """Save the state dict again after `edit`."""
    path = folder / "pytorch_model.bin"
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint["model"])
    torch.save(checkpoint, path)


# Loading


@pytest.mark.parametrize("distill", [True, False])
@pytest.mark.parametrize("wrapper", ["model", "module", ""])
def test_wrapper_and_momentum_copy_do_not_change_the_network(folder, tmp_path, distill, wrapper) -> None:
    other = write_tiny_mplug(tmp_path / "other", distill=distill, wrapper=wrapper)
    report = compare_tensors(read_state(other / "pytorch_model.bin"), read_shape(other))
    assert report.counts == report.expected == expected_counts(read_shape(other))
    assert report.counts["momentum"] == (sum(report.counts.values()) // 2 if distill else 0)
    one, two = read_weights(folder).state, read_weights(other).state
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_legacy_torch_format_is_read(folder) -> None:
    path, expected = folder / "pytorch_model.bin", read_weights(folder).state[NORM]
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(folder).state[NORM], expected)


def test_half_precision_is_loaded_as_float32(folder) -> None:
    change(
        folder, lambda state: state.update({n: t.half() for n, t in state.items() if t.is_floating_point()})
    )
    assert {tensor.dtype for tensor in read_weights(folder).state.values()} == {torch.float32}


def test_dropped_tensors_and_tied_copies_may_be_missing(folder) -> None:
    removed = (
        "visual_encoder.transformer",
        "visual_encoder.visual.proj",
        "text_decoder.cls.predictions.decoder",
    )
    expected = read_weights(folder).state

    def edit(state) -> None:
        for name in [
            n for n in state if n.removeprefix("model.").startswith(removed) or "position_ids" in n
        ]:
            del state[name]

    change(folder, edit)
    state = read_weights(folder).state
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert set(DROPPED) == {"momentum", "clip_text", "unused", "buffer"}


# Errors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("model." + NORM), rf"1 tensors are missing \({NORM}\)"),
        (
            lambda s: s.update({"model.itm_head.weight": torch.ones(2)}),
            r"not the network's \(itm_head.weight\)",
        ),
        (
            lambda s: s.update({"model.fusion_encoder.encoder.layer.4.x": torch.ones(2)}),
            r"not the network's \(fusion_encoder.encoder.layer.4.x\)",
        ),
        (
            lambda s: s.update({"model." + NORM: torch.ones(3)}),
            rf"{NORM} is float32 \[3\], .* float \[64\]",
        ),
        (lambda s: s.update({"model." + NORM: torch.ones(64).int()}), rf"{NORM} is int32 \[64\]"),
        (lambda s: s.update({"model." + HEAD: s["model." + HEAD] + 1}), rf"ties them to \({HEAD}\)"),
        (lambda s: s.update({"model." + HEAD: torch.ones(2)}), rf"ties them to \({HEAD}\)"),
        (lambda s: s.update({NORM: torch.ones(64)}), "holds a name twice"),
        (lambda s: s.update({"model.step": 3}), "something else than tensors"),
        (lambda s: s.clear(), "holds no tensors"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named(folder, edit, message) -> None:
    change(folder, edit)
    with pytest.raises(BadInput, match=message):
        MplugVqa(folder)
    assert not (folder / "pytorch_model.bin.safetensors").exists()


class Malicious:
    def __reduce__(self):
        return (print, ("never",))


@pytest.mark.parametrize("content", [pickle.dumps(Malicious()), b"", b"junk", b"PK\x03\x04junk"])
def test_a_file_that_holds_no_tensors_is_refused(folder, content, capsys) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(BadInput, match=r"pytorch_model.bin is no torch file of tensors alone"):
        MplugVqa(folder)
    assert "never" not in capsys.readouterr().out


def test_pickled_objects_are_refused(folder, capsys) -> None:
    torch.save({"model": {"model." + NORM: Malicious()}}, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="no torch file of tensors alone"):
        MplugVqa(folder)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", "a: [", r"config.yaml is no readable configuration"),
        ("config.yaml", "- 1", r"config.yaml must be a mapping of names to values"),
        ("config.yaml", "image_res: big", r"config.yaml: image_res is 'big'"),
        ("config.yaml", "image_res: 57", r"image_res is no multiple of the patch size"),
        ("config.yaml", "clip_vision_width: 64\nimage_res: 56", r"of one width \(mPLUG base\)"),
        ("config_bert.json", "{", r"config_bert.json is no readable configuration"),
        ("config_bert.json", "{}", r"config_bert.json: hidden_size is None"),
        ("vocab.txt", "yes\nno\n", r"vocab.txt has 2 words, but vocab_size is \d+"),
        ("config.yaml", None, "cannot read .*config.yaml: .*sar-eval fetch dpg"),
        ("config_bert.json", None, "config_bert.json.*sar-eval fetch dpg"),
        ("vocab.txt", None, "vocab.txt.*sar-eval fetch dpg"),
        ("pytorch_model.bin", None, "no mPLUG weights .*sar-eval fetch dpg"),
    ],
)
def test_invalid_or_missing_files_are_named(folder, file, content, message) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(BadInput, match=message):
        MplugVqa(folder)
    if content is None:
        with pytest.raises(BadInput, match="sar-eval fetch dpg"):
            MplugAnswerer(weights=str(folder))


def test_a_vocabulary_of_another_layout(folder) -> None:
    words = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(words.replace("[unused0]\n", "") + "more\n")
    with pytest.raises(BadInput, match="must be ids 101 and 102"):
        MplugVqa(folder)


def test_weights_of_another_shape_are_named(folder) -> None:
    config = json.loads((folder / "config_bert.json").read_text())
    (folder / "config_bert.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(
        BadInput, match=r"text_encoder.encoder.layer.0.intermediate.dense.weight is float32 \[128"
    ):
        MplugVqa(folder)


# The cached conversion


def test_the_cached_conversion_is_used_until_its_source_changes(folder) -> None:
    first = read_weights(folder)
    cached = folder / "pytorch_model.bin.safetensors"
    mtime = cached.stat().st_mtime_ns
    again = read_weights(folder)
    assert cached.stat().st_mtime_ns == mtime
    assert again.digest == first.digest
    assert all(torch.equal(again.state[name], tensor) for name, tensor in first.state.items())
    change(folder, lambda state: state["model." + NORM].add_(1))
    assert torch.equal(read_weights(folder).state[NORM], first.state[NORM] + 1)


def test_a_truncated_conversion_is_replaced(folder) -> None:
    expected, cached = read_weights(folder), folder / "pytorch_model.bin.safetensors"
    data = cached.read_bytes()
    cached.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="no converted mPLUG .*; converting .* again"):
        weights = read_weights(folder)
    assert torch.equal(weights.state[NORM], expected.state[NORM])
    assert torch.equal(read_weights(folder).state[NORM], expected.state[NORM])
    assert cached.stat().st_size == len(data)


def test_a_conversion_for_another_configuration_is_not_used(folder) -> None:
    """With fewer fusion layers, other tensors of the same file are used."""
    before = read_weights(folder).state
    config = json.loads((folder / "config_bert.json").read_text())
    (folder / "config_bert.json").write_text(json.dumps(config | {"fusion_layers": 1}))
    assert len(read_weights(folder).state) == len(before) - 26


# Answers


def test_answers_do_not_depend_on_the_batch(answerer) -> None:
    """Images with different numbers of questions, with none, and with an empty one."""
    questions = [QUESTIONS, QUESTIONS[:1], [], [*QUESTIONS[2:], "  "], QUESTIONS[::-1]]
    batch = list(answerer.answer(list(zip(images(), questions, strict=True))))
    assert [len(answers) for answers in batch] == [len(row) for row in questions]
    texts = {answer.text for answers in batch for answer in answers}
    assert {"yes", "no"} < texts
    for image, row, answers in zip(images(), questions, batch, strict=True):
        for question, answer in zip(row, answers, strict=True):
            alone = next(answerer.answer([(image, [question])]))[0]
            assert (alone.text, alone.yes, alone.error) == (answer.text, answer.yes, answer.error)
            assert alone.soft == pytest.approx(answer.soft, abs=1e-5)
            assert answer.error or answer.yes == (answer.text == "yes")
    assert batch[3][-1] == Answer(error="the question is empty")
    assert list(answerer.answer([])) == []


def test_half_precision_gives_similar_soft_scores(answerer) -> None:
    batch = [(image, QUESTIONS) for image in images()]
    exact = [answer for answers in answerer.answer(batch) for answer in answers]
    with MplugAnswerer(weights=str(answerer.folder), dtype="bfloat16") as other:
        rough = [answer for answers in other.answer(batch) for answer in answers]
    assert [answer.soft for answer in rough] == pytest.approx([answer.soft for answer in exact], abs=0.05)
    assert any(one.soft != two.soft for one, two in zip(exact, rough, strict=True))


def test_the_soft_score_is_yes_against_no_at_the_first_token(answerer) -> None:
    model, image = answerer._model, images(1)[0]
    encoded = model.tokenizer.encode(QUESTIONS[0])
    ids, mask = torch.tensor([encoded.ids]), torch.arange(25)[None] < encoded.length
    tokens = model.network.encode_images(model.pixels([model.prepare(image)]))
    probabilities = model.network.encode_questions(tokens, ids, mask, [1]).start(101)[0].softmax(-1)
    yes, no = probabilities[model.tokenizer.yes_id], probabilities[model.tokenizer.no_id]
    answer = next(answerer.answer([(image, QUESTIONS[:1])]))[0]
    assert answer.soft == pytest.approx(float(yes / (yes + no)), abs=1e-5)


def test_a_long_question_is_truncated(answerer) -> None:
    image = images(1)[0]
    long, cut, short = next(answerer.answer([(image, [LONG, LONG + "car", QUESTIONS[0]])]))
    assert (long.truncated, cut.truncated, short.truncated) == (True, True, False)
    assert (long.text, long.soft) == (cut.text, pytest.approx(cut.soft, abs=1e-6))


def test_questions_are_truncated_at_25_ids(answerer) -> None:
    tokenizer: MplugTokenizer = answerer._model.tokenizer
    longest, longer = tokenizer.encode("dog " * 23), tokenizer.encode("dog " * 24)
    assert (longest.length, longest.truncated) == (longer.length, False) == (25, False)
    assert (longer.ids, longer.truncated) == (longest.ids, True)
    assert tokenizer.encode("[SEP] [MASK]").ids[1] == tokenizer.words.index("[")


def test_special_tokens_are_not_decoded(answerer) -> None:
    tokenizer: MplugTokenizer = answerer._model.tokenizer
    words = ("[CLS]", "[UNK]", "dog", "##s", "yes", "[PAD]", "[SEP]")
    assert tokenizer.decode([tokenizer.words.index(word) for word in words]) == "dogs yes"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_an_array_that_is_no_rgb_image_is_refused(answerer, array) -> None:
    with pytest.raises(BadInput, match=r"needs RGB uint8 \[H, W, 3\]"):
        list(answerer.answer([(array, QUESTIONS)]))


def test_nan_logits_are_an_error(folder) -> None:
    change(folder, lambda state: state["model." + NORM].fill_(float("nan")))
    with (
        MplugAnswerer(weights=str(folder)) as answerer,
        pytest.raises(BadInput, match="NaN or infinity on cpu"),
    ):
        list(answerer.answer([(images(1)[0], QUESTIONS)]))


def test_connected_layers_do_not_depend_on_the_batch(tmp_path) -> None:
    with MplugAnswerer(weights=str(write_tiny_mplug(tmp_path / "m", stride=1))) as answerer:
        assert answerer._model.shape.connected_layers == {3}
        questions = [QUESTIONS, QUESTIONS[:1], QUESTIONS[1:]]
        batch = list(answerer.answer(list(zip(images(3), questions, strict=True))))
        for image, row, answers in zip(images(3), questions, batch, strict=True):
            alone = [next(answerer.answer([(image, [question])]))[0].text for question in row]
            assert alone == [answer.text for answer in answers]


def test_the_version_depends_on_the_files(folder, tmp_path) -> None:
    assert discover.load("answerers", "mplug") is MplugAnswerer
    assert "exactly" in discover.names("answerers")["mplug"]
    first = MplugAnswerer(weights=str(folder)).version
    assert first == MplugAnswerer(weights=str(write_tiny_mplug(tmp_path / "same"))).version
    other = MplugAnswerer(weights=str(write_tiny_mplug(tmp_path / "other", seed=1))).version
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("beam_size: 5", "beam_size: 4"))
    assert len({first, other, MplugAnswerer(weights=str(folder)).version}) == 3


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"batch_size": 0}, {"batch_size": True}])
def test_options_out_of_range_are_refused(folder, options) -> None:
    with pytest.raises(BadInput, match="of answerer 'mplug'"):
        MplugAnswerer(weights=str(folder), **options)
