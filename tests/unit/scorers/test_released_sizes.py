"""The networks at the released sizes, without weights: what the small reference data cannot show."""

import json

import torch

from sar_eval.networks.hpsv3 import weights as hpsv3_weights
from sar_eval.networks.image_reward.network import ImageRewardNetwork
from sar_eval.networks.image_reward.shape import Shape, read_shape
from sar_eval.networks.image_reward.weights import official_name
from tests.parity_data import DATA

# ViT-L/16 at 224 pixels, BERT-base with BLIP's two tokens, and the head of image-reward 1.5.
IMAGE_REWARD = Shape(
    side=224,
    patch=16,
    vision_width=1024,
    vision_layers=24,
    vision_heads=16,
    vision_inner=4096,
    text_width=768,
    text_layers=12,
    text_heads=12,
    text_inner=3072,
    vocabulary=30_524,
    positions=512,
    head={0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)},
)
# Qwen2-VL-7B-Instruct's config.json, where it differs from the small base's.
QWEN = {
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
QWEN_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 3584}
QWEN_ROWS, HPSV3_ROWS = 152_064, 151_658  # of the embedding, and what HPSv3 keeps of it
QWEN_PARAMETERS = 8_291_375_616  # with the output layer, as its hub page says


def test_imagereward_needs_no_file_of_sizes(tmp_path) -> None:
    """The numbers of heads, which no tensor tells, follow from the width of a head."""
    with torch.device("meta"):
        network = ImageRewardNetwork(IMAGE_REWARD)
    state = {official_name(name): tensor for name, tensor in network.state_dict().items()}
    assert read_shape(state, tmp_path) == IMAGE_REWARD
    assert state["blip.visual_encoder.blocks.23.attn.qkv.weight"].shape == (3072, 1024)
    assert state["blip.text_encoder.encoder.layer.11.crossattention.self.key.weight"].shape == (768, 1024)


def test_hpsv3_is_qwen2_vl_7b_with_a_shorter_embedding_and_a_head(tmp_path) -> None:
    config = json.loads((DATA / "hpsv3" / "base" / "config.json").read_text())
    vision = config["vision_config"] | QWEN_VISION
    (tmp_path / "config.json").write_text(json.dumps({**config, **QWEN, "vision_config": vision}))
    network = hpsv3_weights._build(tmp_path / "config.json", HPSV3_ROWS)
    total, head = (sum(p.numel() for p in part.parameters()) for part in (network, network.head))
    output_layer = QWEN_ROWS * 3584
    assert total - head == QWEN_PARAMETERS - output_layer - (QWEN_ROWS - HPSV3_ROWS) * 3584
    assert head == 3584 * 1024 + 1024 + 1024 * 16 + 16 + 16 * 2 + 2
