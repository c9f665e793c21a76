"""What people have in a checkpoint's folder: leftovers, adapters, shards of trainers, odd names."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sar_eval.decoding.load import load_decoder
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
WEIGHTS = "model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint.parent, tmp_path / "c")
    return tmp_path / "c" / "decoder"


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    changed = change(weights)
    save_file(changed if isinstance(changed, dict) else weights, folder / WEIGHTS)


def _configure(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _sharded(folder: Path) -> None:
    """The weights in two files with an index."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    halves = [dict(list(weights.items())[part::2]) for part in (0, 1)]
    for name, half in zip(files, halves, strict=True):
        save_file(half, folder / name)
    weight_map = {key: name for name, half in zip(files, halves, strict=True) for key in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _embedding(folder: Path) -> torch.Tensor:
    return load_decoder(find_checkpoint(str(folder)), "cpu", "float32").embedding


def test_what_the_index_does_not_name_is_not_loaded(copy: Path, tiny_checkpoint: Path) -> None:
    _sharded(copy)
    other = {name: torch.zeros_like(t) for name, t in load_file(tiny_checkpoint / WEIGHTS).items()}
    save_file(other, copy / "model-00002-of-00003.safetensors")
    save_file(other, copy / "zz.safetensors")
    found = find_checkpoint(str(copy))
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))
    [note] = found.notes
    assert note.endswith("is loaded, and not model-00002-of-00003.safetensors, zz.safetensors")
    assert found.digest != find_checkpoint(str(tiny_checkpoint)).digest  # two files instead of one


def test_tensors_of_a_shard_that_the_index_places_elsewhere_are_not_loaded(
    copy: Path, tiny_checkpoint: Path
) -> None:
    _sharded(copy)
    path = copy / "model-00002-of-00002.safetensors"
    stale = load_file(path) | {EMBEDDING: torch.zeros(3, 3)}
    first = load_file(copy / "model-00001-of-00002.safetensors")
    assert EMBEDDING in first
    save_file(stale, path)
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))


def test_a_plain_file_is_loaded_without_its_neighbours(copy: Path, tiny_checkpoint: Path) -> None:
    before = find_checkpoint(str(copy))
    save_file({EMBEDDING: torch.zeros(2, 2)}, copy / "old-model.safetensors")
    torch.save({}, copy / "pytorch_model.bin")
    found = find_checkpoint(str(copy))
    assert found.digest == before.digest
    assert found.notes[0].endswith("and not old-model.safetensors, pytorch_model.bin")
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))


def test_several_files_without_an_index_are_a_whole_series_or_refused(copy: Path) -> None:
    _sharded(copy)
    (copy / "model.safetensors.index.json").unlink()
    assert len(find_checkpoint(str(copy)).weight_files.paths) == 2
    shutil.copy(copy / "model-00001-of-00002.safetensors", copy / "model-00001-of-00003.safetensors")
    with pytest.raises(BadInput, match=r"has 3 files of weights .*which says what belongs together"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "weight_map is None"),
        ([], r"weight_map is \[\]"),
        ({}, r"weight_map is \{\}"),
        ({EMBEDDING: 3}, "is in 3: no name of a file beside it"),
        ({EMBEDDING: "../x.safetensors"}, "no name of a file beside it"),
        ({EMBEDDING: "x" * 300}, "no name of a file beside it"),
        ({EMBEDDING: "model-00001-of-00030.safetensors"}, "no model-00001-of-00030.safetensors in"),
        ({"nowhere.weight": WEIGHTS}, "has no tensor 'nowhere.weight', which the index says"),
    ],
)
def test_an_index_that_does_not_fit_is_told(copy: Path, table: object, message: str) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(copy))


FOREIGN = [
    (
        ["adapter_config.json", "adapter_model.safetensors"],
        r"has an adapter .*`sar-eval ckpt merge .* --out MERGED`",
    ),
    (["adapter_model.bin"], r"has an adapter"),
    (["global_step100/mp_rank_00_model_states.pt", "zero_to_fp32.py"], r"ZeRO.*zero_to_fp32.py \. OUT"),
    (["global_step9/zero_pp_rank_0_mp_rank_00_optim_states.pt"], "ZeRO"),
    (["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata"], "FSDP.*dcp_to_torch"),
    (["__0_0.distcp", ".metadata"], "FSDP"),
    (["iter_0001000/mp_rank_00/model_optim_rng.pt", "latest_checkpointed_iteration.txt"], "Megatron"),
    (["optimizer.pt", "scheduler.pt", "trainer_state.json"], "state of a trainer without the model's"),
    (["model-Q4_K_M.gguf"], "GGUF"),
    (["model.onnx"], "ONNX"),
    (["tf_model.h5"], "TensorFlow"),
    (["flax_model.msgpack"], "Flax"),
    (["model_index.json", "unet/config.json"], "pipeline of diffusers"),
    (["epoch=3.ckpt"], "Lightning"),
    (["encoder.jit", "decoder.jit"], "--visual-tokenizer"),
    (["dcp/step-9/.metadata", "dcp/step-9/__0_0.distcp"], "FSDP"),
    (["actor/model_world_size_8_rank_0.pt"], "verl.*model_merger"),
    (["checkpoint-9/adapter_config.json", "checkpoint-9/adapter_model.safetensors"], "an adapter below it"),
    (["consolidated.00.pth"], "name it pytorch_model.bin"),
    (["model.safetensors.part"], "a download that broke off"),
    (
        ["checkpoint-100/config.json", "checkpoint-200/config.json"],
        "name one of checkpoint-100, checkpoint-200",
    ),
]


@pytest.mark.parametrize(("names", "message"), FOREIGN, ids=[names[0] for names, _ in FOREIGN])
@pytest.mark.parametrize("with_config", [False, True])
def test_folders_of_trainers_and_other_tools_are_named(
    names: list[str], message: str, with_config: bool, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sar_eval.json").write_text(
        json.dumps({"visual_tokenizer": str(tiny_checkpoint.parent / "tokenizer")})
    )
    if with_config:
        shutil.copy(tiny_checkpoint / "config.json", tmp_path / "config.json")
        message = "no \\*.safetensors" if "name one of" in message else message
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(tmp_path))


def test_an_adapter_beside_whole_weights_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, copy / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"adapter_config\.json.* would not be applied: merge it first"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", WEIGHTS, "sar_eval.json"),
        *("../tokenizer/decoder.jit", "../tokenizer/encoder.jit", "../tokenizer/config.json"),
    ],
)
def test_git_lfs_pointers_are_told_before_anything_is_loaded(copy: Path, name: str) -> None:
    (copy / name).write_text(POINTER)
    with pytest.raises(BadInput, match=rf"{Path(name).name} is a git-lfs pointer.* lfs pull"):
        find_checkpoint(str(copy))


def test_empty_tensors_of_zero_3_are_told(copy: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    _rewrite(copy, lambda weights: weights.update({name: torch.zeros(0)}))
    with pytest.raises(BadInput, match=rf"1 tensors are empty \({name}, \.\.\.\).*ZeRO-3.*zero_to_fp32"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(("equal", "tied"), [(True, True), (False, True), (False, False), (None, False)])
def test_the_head_and_the_flag_must_agree(
    copy: Path, suffix: str, equal: bool | None, tied: bool, tiny_checkpoint: Path
) -> None:
    weights = load_file(copy / WEIGHTS)
    if equal is not None:
        weights[HEAD] = weights[EMBEDDING].clone() + (0 if equal else 1)
    save_file(weights, copy / WEIGHTS)
    if suffix == "bin":
        torch.save(weights, copy / "pytorch_model.bin")
        (copy / WEIGHTS).unlink()
    _configure(copy, tie_word_embeddings=tied)

    def load() -> torch.Tensor:
        return load_decoder(find_checkpoint(str(copy)), "cpu", "float32").head

    if tied and not equal:
        with pytest.raises(BadInput, match=r"tie_word_embeddings true, but lm_head\.weight differs"):
            load()
    elif equal is None:
        with pytest.raises(BadInput, match=r"no tensor 'lm_head\.weight' .*is it true\?"):
            load()
    else:
        assert torch.equal(load(), weights[HEAD].float())


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.module.", "module._orig_mod.", "_orig_mod.module.", "model."]
)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_prefixes_of_all_names_are_left_out(
    copy: Path, prefix: str, suffix: str, tiny_checkpoint: Path
) -> None:
    weights = {prefix + name: tensor for name, tensor in load_file(copy / WEIGHTS).items()}
    save_file(weights, copy / WEIGHTS)
    if suffix == "bin":
        torch.save(weights, copy / "pytorch_model.bin")
        (copy / WEIGHTS).unlink()
    found = find_checkpoint(str(copy))
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))
    [note] = found.notes
    assert f"the prefix {prefix} of all" in note


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.layers.0.self_attn.q_proj.lora_A.default.weight"], "an adapter that is not merged"),
        (["model.layers.0.mlp.up_proj.qweight"], "quantised weights"),
        (["v_head.summary.weight"], "reward or value model"),
        (["model.layers.9.mlp.up_proj.weight"], r"no part of the decoder .*model\.layers\.9"),
        (["model.layers.0.self_attn.q_proj.base_layer.weight"], "an adapter that is not merged"),
        (["model.layers.0.self_attn.q_proj.lora_magnitude_vector"], "an adapter that is not merged"),
        (["prompt_embeddings"], "an adapter that is not merged"),
        (["vision_tower.x", "mm_projector.y"], "2 tensors are no part of the decoder"),
        (["module.model.norm.weight"], "no part of the decoder"),
    ],
)
def test_tensors_of_other_models_are_refused_by_name(copy: Path, names: list[str], message: str) -> None:
    _rewrite(copy, lambda weights: weights.update({name: torch.ones(2) for name in names}))
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(copy))


def test_buffers_that_are_computed_are_ignored(copy: Path, tiny_checkpoint: Path) -> None:
    names = [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.position_ids",
    ]
    _rewrite(copy, lambda weights: weights.update({name: torch.ones(2) for name in names}))
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))
    assert find_checkpoint(str(copy)).notes == ()


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module", "model_state_dict"])
def test_tensors_are_taken_out_of_a_trainers_state(copy: Path, wrapper: str, tiny_checkpoint: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    options = argparse.Namespace(lr=np.float32(1))
    torch.save({wrapper: weights, "epoch": np.float64(3), "args": options}, copy / "pytorch_model.bin")
    assert torch.equal(_embedding(copy), _embedding(tiny_checkpoint))


def test_a_pickle_is_refused_in_our_own_words(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    torch.save({"model": {}, "path": Path("x")}, copy / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"object of pathlib\.\w+, and pickled objects may be") as caught:
        _embedding(copy)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("multiple", [64, 128])
@pytest.mark.parametrize("in_config", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_padded_vocabularies_keep_their_visual_rows(
    copy: Path, multiple: int, in_config: bool, tied: bool, tiny_checkpoint: Path
) -> None:
    plain = load_file(copy / WEIGHTS)[EMBEDDING]
    rows = -(-len(plain) // multiple) * multiple
    assert rows > len(plain)
    padded = torch.cat([plain, torch.full((rows - len(plain), plain.shape[1]), 9.0, dtype=plain.dtype)])

    def pad(weights: dict[str, torch.Tensor]) -> None:
        weights[EMBEDDING] = padded.clone()
        if not tied:
            weights[HEAD] = padded.clone()

    _rewrite(copy, pad)
    _configure(copy, tie_word_embeddings=tied, **({"vocab_size": rows} if in_config else {}))
    found = find_checkpoint(str(copy))
    assert found.visual_ids == find_checkpoint(str(tiny_checkpoint)).visual_ids
    assert found.notes == (
        f"{copy}: {len(plain)} of {rows} rows of the vocabulary are used, the rest is padding",
    )
    decoder = load_decoder(found, "cpu", "float32")
    assert torch.equal(decoder.embedding, plain.float())
    assert torch.equal(decoder.head, plain.float())
    assert found.load_transformers("cpu", torch.float32).model.lm_head.weight.shape == plain.shape


@pytest.mark.parametrize("more", [1, 200])
def test_other_sizes_of_the_vocabulary_are_refused(copy: Path, more: int) -> None:
    plain = load_file(copy / WEIGHTS)[EMBEDDING]
    _configure(copy, vocab_size=len(plain) + more)
    with pytest.raises(BadInput, match=rf"vocab_size {len(plain) + more} is not \d+ text ids"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 4}, "no multiple of num_key_value_heads"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"hidden_size": 1.5}, "hidden_size is 1.5"),
        ({"hidden_size": None}, "a value is no number: hidden_size is None"),
        ({"hidden_size": True}, "a value is no number"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"rope_parameters": [1]}, r"rope_parameters is \[1\]"),
        ({"rope_parameters": "x"}, "rope_parameters is 'x'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"model_type": ["qwen2"]}, "only 'qwen2' decoders"),
        (
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            r"'llama' \(LlamaForCausalLM\), only",
        ),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "no head that predicts tokens"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights are not supported"),
    ],
)
def test_values_of_the_configuration_are_checked(
    copy: Path, values: dict[str, object], message: str
) -> None:
    _configure(copy, **values)
    with pytest.raises(BadInput, match=rf"config\.json: .*{message}"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"hidden_size": 1e999}', "not finite"),
        ('{"a": ' + "[" * 600 + "]" * 600 + "}", "nested deeper"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "whole number of 5000 digits"),
        ('{"model_type": "\\ud800"}', "lone surrogate"),
        ("\xff", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "sar_eval.json", "../tokenizer/config.json"])
def test_hostile_json_is_told(copy: Path, name: str, text: str, message: str) -> None:
    (copy / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=rf"{Path(name).name}.*{message}"):
        _ = find_checkpoint(str(copy)).native_resolution


@pytest.mark.parametrize("value", [0, -1, 1.5, "64", True, [], 10**20])
def test_the_resolution_must_be_a_number_of_pixels(copy: Path, value: object) -> None:
    path = copy / "sar_eval.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resolution": value}))
    with pytest.raises(BadInput, match=r"sar_eval\.json: resolution is"):
        _ = find_checkpoint(str(copy)).native_resolution


@pytest.mark.parametrize(
    "name", ["", "x" * 300, "a\0b", "%s" % ("y" * 5000), "no/such/folder/at/all", "/", "."]
)
def test_names_of_nothing_are_told(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        find_checkpoint(name)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "../" * 2000])
def test_names_of_no_visual_tokenizer_are_told(copy: Path, name: str) -> None:
    with pytest.raises(BadInput):
        find_checkpoint(str(copy), name)
    (copy / "sar_eval.json").write_text(json.dumps({"visual_tokenizer": name}))
    with pytest.raises(BadInput):
        find_checkpoint(str(copy))
