"""Emu3's scores and greedy tokens against those of its authors' code, in both namings."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.emu3_tensors import emu3_config, match_emu3
from tests.parity_data import needs
from tests.teacher_forcing import ForcedRows, mixed

pytestmark = pytest.mark.usefixtures("one_thread")
NAMINGS = ("original", "transformers")
WIDTH, CODES = 5, 20


@pytest.fixture(scope="module")
def folder(parity):
    return needs(parity / "emu3")


@pytest.fixture(scope="module")
def expected(folder):
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def cases(folder):
    return json.loads((folder / "cases.json").read_text())


def _stored(folder, naming):
    """Config and tensors of one publisher, of transformers with those of the picture tokenizer."""
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    if naming == "original":
        return config, tensors
    names = json.loads((folder / "hf_names.json").read_text())
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    kept = {key: value for key, value in config.items() if key not in ("rms_norm_eps", "rope_theta")}
    return {"model_type": "emu3", "text_config": kept}, renamed | {"model.vqmodel.x": torch.zeros(1)}


def _match(config, tensors):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return match_emu3(shapes, emu3_config(config), "here")


@pytest.fixture(scope="module", params=NAMINGS)
def decoder(folder, request):
    config, tensors = _stored(folder, request.param)
    network = _match(config, tensors)
    return Decoder(network.config, network.weights(tensors))


def _codes(rows, cases, guidance, forced=None):
    """Guided scores of each code, and the codes: given ones, or the best."""
    scores, codes = [], []
    for number in range(CODES):
        first = cases["first_visual_id"] - rows.first_id
        guided = mixed(rows.scores().log_softmax(-1), guidance)[first:]
        scores.append(guided)
        codes.append(int(guided.argmax() if forced is None else forced[number]))
        end = [cases["special"]["eol"]] if number % WIDTH == WIDTH - 1 else []
        rows.feed(cases["first_visual_id"] + codes[-1], *end)
    return torch.stack(scores), codes


def _rows(decoder, cases, prompt):
    prefixes = [torch.tensor(ids) for ids in (prompt["ids"], cases["negative_ids"])]
    return ForcedRows(decoder, prefixes, CODES + CODES // WIDTH, 0)


@pytest.mark.parametrize("scale", [1, 3])
def test_scores_under_given_codes_are_the_authors(decoder, cases, expected, scale) -> None:
    for number, prompt in enumerate(cases["prompts"][:2]):
        scores, _ = _codes(_rows(decoder, cases, prompt), cases, scale, expected["forced"][number])
        torch.testing.assert_close(scores, expected[f"scores_{scale}"][number], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 3])
def test_greedy_tokens_are_the_authors(decoder, cases, expected, scale) -> None:
    greedy = expected[f"greedy_{scale}"].tolist()
    found = [_codes(_rows(decoder, cases, prompt), cases, scale)[1] for prompt in cases["prompts"]]
    assert found == greedy


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_tensor_that_is_missing_or_foreign_is_named(folder, naming) -> None:
    config, tensors = _stored(folder, naming)
    for name in _match(config, tensors).stored.values():
        with pytest.raises(BadInput, match=f"no tensor '{name}'"):
            _match(config, {n: t for n, t in tensors.items() if n != name})
    with pytest.raises(BadInput, match=r"self_attn\.q_proj\.bias"):
        _match(config, tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})


def test_transformers_short_config_means_the_hubs_network() -> None:
    found = emu3_config({"model_type": "emu3", "text_config": {"model_type": "emu3_text_model"}})
    assert (found.hidden_size, found.vocab_size, found.num_key_value_heads) == (4096, 184622, 8)
    assert (found.rope_theta, found.rms_norm_eps, found.switches.qkv_bias) == (1e6, 1e-5, False)
