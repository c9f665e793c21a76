"""Janus' scores and greedy tokens against those of its authors' code and of transformers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.janus_tensors import janus_config, match_janus
from tests.parity_data import needs
from tests.teacher_forcing import ForcedRows, forced_scores, greedy_codes, mixed

pytestmark = pytest.mark.usefixtures("one_thread")
NAMINGS = ("original", "transformers")


@pytest.fixture(scope="module")
def folder(parity):
    return needs(parity / "janus")


@pytest.fixture(scope="module")
def expected(folder):
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def prompts(folder):
    return json.loads((folder / "cases.json").read_text())["prompts"]


def _stored(folder, naming):
    """Config and tensors of one publisher."""
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    if naming == "original":
        return json.loads((folder / "config.json").read_text()), tensors
    names = json.loads((folder / "hf_names.json").read_text())
    renamed = {names[name]: t for name, t in tensors.items() if isinstance(names[name], str)}
    return json.loads((folder / "hf_config.json").read_text()), renamed


def _match(config, tensors):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return match_janus(shapes, janus_config(config), "here")


def _decoder(folder, naming):
    config, tensors = _stored(folder, naming)
    network = _match(config, tensors)
    return Decoder(network.config, network.weights(tensors))


@pytest.fixture(scope="module", params=NAMINGS)
def decoder(folder, request):
    return _decoder(folder, request.param)


def _rows(decoder, prompt, steps):
    prefixes = [torch.tensor(prompt[key]) for key in ("ids", "negative_ids")]
    return ForcedRows(decoder, prefixes, steps, decoder.config.switches.head_start)


def test_scores_under_given_codes_are_the_authors(decoder, prompts, expected) -> None:
    for number, prompt in enumerate(prompts):
        codes = expected["forced"][number]
        scores = forced_scores(_rows(decoder, prompt, len(codes)), codes)
        torch.testing.assert_close(scores.transpose(0, 1), expected[f"rows_{number}"], rtol=0, atol=5e-6)
        for scale in (1, 3, 5):
            guided = torch.stack([mixed(step, scale) for step in scores])
            torch.testing.assert_close(guided, expected[f"logits_{scale}"][number], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_greedy_tokens_are_the_authors(decoder, prompts, expected, scale) -> None:
    greedy = expected[f"greedy_{scale}"]
    found = [greedy_codes(_rows(decoder, prompt, 16), scale, 16) for prompt in prompts]
    assert found == greedy.tolist()


def test_other_weights_are_taken_in_place(folder) -> None:
    config, tensors = _stored(folder, "original")
    network = _match(config, tensors)
    other = {name: tensor * 0.5 for name, tensor in tensors.items()}
    decoder, wanted = (Decoder(network.config, network.weights(t)) for t in (other, tensors))
    decoder.load_weights(network.weights(tensors))
    ids, positions = torch.arange(470, 490)[None], torch.arange(20)[None]
    hidden = [one.forward(ids, positions, one.new_cache(1, 20), 20) for one in (decoder, wanted)]
    assert torch.equal(*hidden)
    for found, right in zip(decoder.head_of(480, 544), wanted.head_of(480, 544), strict=True):
        assert torch.equal(found, right)


def test_text_cannot_be_sampled(folder) -> None:
    with pytest.raises(BadInput, match="ids 0 to 543 are asked for, and this network predicts 480 to 543"):
        _decoder(folder, "original").head_of(0, 544)


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_tensor_that_is_missing_foreign_or_misshapen_is_named(folder, naming) -> None:
    config, tensors = _stored(folder, naming)
    network = _match(config, tensors)
    for name in network.stored.values():
        with pytest.raises(BadInput, match=f"no tensor '{name}'"):
            _match(config, {n: t for n, t in tensors.items() if n != name})
        with pytest.raises(BadInput, match=f"tensor '{name}' is"):
            _match(config, tensors | {name: torch.zeros(3, 5, 7)})
        with pytest.raises(BadInput, match=f"are empty \\({name}"):
            _match(config, tensors | {name: torch.zeros(0)})
    with pytest.raises(BadInput, match=r"gen_embed\.bias"):
        _match(config, tensors | {"gen_embed.bias": torch.zeros(3)})
    with pytest.raises(BadInput, match="quantised"):
        network.weights(tensors | {network.stored["lm_head.weight"]: torch.zeros(64, 64, dtype=torch.int8)})


def test_a_trainers_wrappers_are_taken_off(folder) -> None:
    config, tensors = _stored(folder, "original")
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    found = _match(config, wrapped).stored
    assert found == {ours: f"module.{name}" for ours, name in _match(config, tensors).stored.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language_config": None}, "language_config is None"),
        ({"gen_head_config": {"params": {}}}, "no key 'image_token_size'"),
        ({"language_config": {"attention_bias": True}}, "attention with biases is not supported"),
        ({"language_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'"),
        ({"language_config": {"rope_scaling": {"type": "linear"}}}, "scaled rotary"),
    ],
)
def test_a_config_of_another_network_is_refused(folder, change, message) -> None:
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(BadInput, match=message):
        janus_config(config | change)


def test_what_the_7b_config_leaves_out_is_llamas() -> None:
    language = {"max_position_embeddings": 16384, "num_hidden_layers": 30, "vocab_size": 102400}
    head = {"params": {"image_token_embed": 4096, "image_token_size": 16384, "n_embed": 4096}}
    found = janus_config({"language_config": language, "gen_head_config": head})
    assert (found.hidden_size, found.intermediate_size, found.num_key_value_heads) == (4096, 11008, 32)
    assert (found.vocab_size, found.switches.head_start, found.head_rows) == (118784, 102400, 16384)
