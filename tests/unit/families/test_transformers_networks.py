"""Networks of transformers, made small and random, against ours of the same tensors.

Janus' and Emu3's are families here. Qwen3's and GLM-4's have what another family may switch on.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.emu3_tensors import emu3_config, match_emu3
from sar_eval.families.janus_tensors import janus_config, match_janus
from sar_eval.families.llamagen_tensors import halves_of_neighbours
from sar_eval.families.tensor_names import decoder_shapes

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CODES = 24


def _random(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(noise if parameter.ndim > 1 else 1 + noise)
    return model.eval()


def _decoder(model, config, match, read):
    """Ours, of what transformers would save; that is what its checkpoints are."""
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    network = match(shapes, read(config.to_dict()), "here")
    return Decoder(network.config, network.weights(tensors))


def _logits(decoder, ids, first, end):
    cache = decoder.new_cache(*ids.shape)
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    hidden = decoder.forward(ids, positions, cache, ids.shape[1])
    weight, bias = decoder.head_of(first, end)
    return torch.nn.functional.linear(hidden, weight, bias)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(3, 96, (2, 9), generator=torch.Generator().manual_seed(1))


def test_janus_scores_are_transformers(ids) -> None:
    from transformers import JanusConfig, JanusForConditionalGeneration

    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
    vq = {"num_embeddings": CODES, "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    config = JanusConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**vision, "projection_dim": 32},
        vq_config={**vq, "latent_channels": 32, "projection_dim": 32, "image_token_embed_dim": 32},
        tie_word_embeddings=False,
    )
    model = _random(JanusForConditionalGeneration(config))
    decoder = _decoder(model, config, match_janus, janus_config)
    codes = torch.randint(CODES, (2, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        text = model.get_input_embeddings()(ids)
        inputs = torch.cat([text, model.prepare_embeddings_for_image_generation(codes)], 1)
        hidden = model.model.language_model(inputs_embeds=inputs).last_hidden_state
        wanted = model.model.generation_head(hidden)
        found = _logits(decoder, torch.cat([ids, 96 + codes], 1), 96, 96 + CODES)
    assert wanted.std() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_emu3_scores_are_transformers(ids) -> None:
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    vq = {"codebook_size": CODES, "base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1}
    config = Emu3Config(
        text_config=TEXT,
        vq_config={**vq, "attn_resolutions": [], "temporal_downsample_factor": 1},
        vocabulary_map={"<image>": 4},
    )
    model = _random(Emu3ForConditionalGeneration(config))
    decoder = _decoder(model, config, match_emu3, emu3_config)
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        found = _logits(decoder, ids, 0, 96)
    assert wanted.std() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def _switched(model, tensors, **switches):
    """Ours, of tensors with Llama's names: what a family from elsewhere would do."""
    config = DecoderConfig.from_llama(model.config.to_dict() | {"model_type": "llama"}, {})
    config = replace(config, switches=replace(config.switches, **switches))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dict(decoder_shapes(config))
    return Decoder(config, tensors)


def test_norms_of_queries_and_keys_are_qwen3s(ids) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = _random(Qwen3ForCausalLM(Qwen3Config(**TEXT, head_dim=16, tie_word_embeddings=False)))
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    decoder = _switched(model, tensors, qk_norm=True)
    with torch.no_grad():
        wanted, found = model(input_ids=ids).logits, _logits(decoder, ids, 0, 96)
    assert wanted.std() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    without = {name: tensor for name, tensor in tensors.items() if "layers.1.self_attn.k_norm" not in name}
    with pytest.raises(BadInput, match=r"no tensor 'model.layers.1.self_attn.k_norm.weight'"):
        Decoder(decoder.config, without)


def test_sandwich_norms_are_glm4s(ids) -> None:
    from transformers import Glm4Config, Glm4ForCausalLM

    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    config = Glm4Config(
        **TEXT, head_dim=8, rope_parameters=rope, attention_bias=False, tie_word_embeddings=False
    )
    model, tensors = _random(Glm4ForCausalLM(config)), {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # its rotary angles pair neighbours
            tensors[name] = halves_of_neighbours(tensor, 8)
        elif "gate_up_proj" in name:
            gate, up = tensor.chunk(2)
            tensors |= {name.replace("gate_up", "gate"): gate, name.replace("gate_up", "up"): up}
        else:
            tensors[name] = tensor
    decoder = _switched(model, tensors, sandwich_norms=True)
    with torch.no_grad():
        wanted, found = model(input_ids=ids).logits, _logits(decoder, ids, 0, 96)
    assert wanted.std() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
