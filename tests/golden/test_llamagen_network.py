"""LlamaGen's scores and greedy tokens against those of its authors' code."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.llamagen_tensors import CaptionPrefix, llamagen_config, match_llamagen
from tests.parity_data import needs
from tests.teacher_forcing import ForcedRows, forced_scores, greedy_codes, mixed

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(parity):
    return needs(parity / "llamagen")


@pytest.fixture(scope="module")
def expected(folder):
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def tensors(folder):
    return load_file(folder / "gpt.safetensors")


def _match(folder, tensors, side=4):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    heads = json.loads((folder / "shape.json").read_text())["gpt"]["n_head"]
    return match_llamagen(shapes, llamagen_config(shapes, side, "here", heads), "here")


@pytest.fixture(scope="module", params=[4, 6])
def network(folder, tensors, request):
    """The side of the picture, its decoder and its prefix."""
    found = _match(folder, tensors, request.param)
    decoder = Decoder(found.config, found.weights(tensors))
    return request.param, decoder, CaptionPrefix.of(found, tensors)


def _rows(network, embeddings, mask):
    side, decoder, prefix = network
    return ForcedRows(decoder, prefix.rows(embeddings, mask.bool()), side * side, 0)


def _guided(scores, scale):
    return scores[0] if scale <= 1 else mixed(scores, scale)


def test_scores_under_given_codes_are_the_authors(network, expected) -> None:
    side = network[0]
    for number in range(4):
        rows = _rows(network, expected["packed"][number], expected["packed_mask"][number])
        scores = forced_scores(rows, expected[f"forced_{side}"][number])
        for scale in ("1", "4", "7.5"):
            guided = torch.stack([_guided(step, float(scale)) for step in scores])
            wanted = expected[f"g{side}_cfg{scale}_logits"][number]
            torch.testing.assert_close(guided, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", ["1", "4", "7.5"])
def test_greedy_tokens_are_the_authors(network, expected, scale) -> None:
    side = network[0]
    for number in range(4):
        rows = _rows(network, expected["packed"][number], expected["packed_mask"][number])
        found = greedy_codes(rows, float(scale), side * side)
        assert found == expected[f"g{side}_cfg{scale}_greedy"][number].tolist()


def test_a_prefix_that_is_not_packed_gives_the_authors_tokens(network, expected) -> None:
    side = network[0]
    rows = _rows(network, expected["t5_raw"][0], expected["t5_mask"][0])
    assert greedy_codes(rows, 4.0, side * side) == expected[f"g{side}_rightpad_greedy"][0].tolist()


def test_image_tokens_without_a_known_start_are_refused(network) -> None:
    _, decoder, _ = network
    cache = decoder.new_cache(1, 8)
    with pytest.raises(IndexError):
        decoder.forward(torch.tensor([[3]]), torch.tensor([[2]]), cache, 3)


def test_a_tensor_that_is_missing_foreign_or_misshapen_is_named(folder, tensors) -> None:
    for name in _match(folder, tensors).stored.values():
        with pytest.raises(BadInput, match=name):
            _match(folder, {n: t for n, t in tensors.items() if n != name})
        with pytest.raises(BadInput):
            _match(folder, tensors | {name: torch.zeros(3, 5, 7)})
    with pytest.raises(BadInput, match=r"cls_embedding\.embedding_table"):
        _match(folder, tensors | {"cls_embedding.embedding_table.weight": torch.zeros(3, 64)})


def test_heads_are_those_of_the_authors_sizes(tensors) -> None:
    wide = {"tok_embeddings.weight": (16384, 1280), "layers.0.feed_forward.w1.weight": (3584, 1280)}
    found = llamagen_config(wide | {f"layers.{n}.x": (1,) for n in range(36)}, 16, "here")
    assert (found.num_attention_heads, found.head_dim, found.max_position_embeddings) == (20, 64, 376)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with pytest.raises(BadInput, match="2 layers of width 64 are no network"):
        llamagen_config(shapes, 4, "here")
    with pytest.raises(BadInput, match=r"no matrix 'tok_embeddings\.weight'"):
        llamagen_config({"lm_head.weight": (3, 4)}, 4, "here")
