"""The decoding loop on tiny random weights draws what plain decoding, token by token, draws."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from sar_eval.decoding.linear import Linear, Plain
from sar_eval.decoding.loop import BatchDecoder, DecodeOutput, Row, Vocabulary, prefill
from sar_eval.decoding.noise import gumbel, noise_keys
from sar_eval.decoding.speculation import SpeculativeDecoder, slot_tables
from sar_eval.decoding.transformer import Decoder
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.emu3_prompts import SpecialIds, forced_tokens
from sar_eval.families.image_plan import ImagePlan
from sar_eval.types import DrawProtocol

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT, CODES = 20, 48
CONFIG = DecoderConfig(32, 48, 2, 4, 2, 8, TEXT + CODES, 1e4, 1e-6, False, 256)
VISUAL_IDS = range(TEXT, TEXT + CODES)
PROTOCOL = DrawProtocol("test", 0)
GUIDED = ((3.0,),)
SEEDS = (5, 2**40 + 1, 77)
PROMPTS = [[[1, 2, 3], [4, 5]], [[6], [4, 5]], [[7, 8, 9, 10, 11], [12]]]  # of each draw its branches
Draws = Sequence[Sequence[Row]]


@cache
def _decoder() -> Decoder:
    return Decoder(CONFIG, _weights())


def _weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    hidden, key, inner = CONFIG.hidden_size, 2 * CONFIG.head_dim, CONFIG.intermediate_size
    sizes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    table = (CONFIG.vocab_size, hidden)
    weights = {"model.embed_tokens.weight": torch.randn(table), "lm_head.weight": torch.randn(table)}
    weights["model.norm.weight"] = torch.ones(hidden)
    for layer in (f"model.layers.{n}." for n in range(CONFIG.num_hidden_layers)):
        weights |= {f"{layer}{name}.weight": torch.randn(size) / 4 for name, size in sizes.items()}
        weights |= {
            f"{layer}self_attn.{n}_proj.bias": torch.randn(sizes[f"self_attn.{n}_proj"][0]) for n in "qkv"
        }
        names = ("input_layernorm", "post_attention_layernorm")
        weights |= {f"{layer}{name}.weight": torch.ones(hidden) for name in names}
    return weights


def _reference(rows: Sequence[Row], plan: ImagePlan, protocol: DrawProtocol, seed: int) -> list[int]:
    """Codes of one draw; each token takes one forward of the whole sequence in each branch."""
    keys, ids = noise_keys([seed], plan.codes, torch.device("cpu")), torch.arange(CODES, dtype=torch.int32)
    after: list[int] = []
    codes: list[int] = []
    for slot in range(plan.slots):
        if slot in plan.forced:
            after.append(plan.forced[slot])
            continue
        code = len(codes)
        logits = [_logits(row, after) for row in rows]
        weights = plan.weights[code if len(plan.weights) > 1 else 0]
        pairs = zip(weights, logits[:-1], strict=True)
        scores = logits[-1] + sum(weight * (each - logits[-1]) for weight, each in pairs)
        if protocol.temperature:
            scores = scores / protocol.temperature + gumbel(keys[code], ids)[0]
        codes.append(int(scores.argmax()))
        after.append(codes[-1] + TEXT)
    return codes


@torch.inference_mode()
def _logits(row: Row, after: list[int]) -> Tensor:
    """Of the token after a whole sequence, computed without what was computed before."""
    decoder = _decoder()
    before = row if isinstance(row, Tensor) else decoder.embedding[list(row)]
    inputs = torch.cat([before, decoder.embedding[after]])[None]
    length = inputs.shape[1]
    hidden = decoder.forward(inputs, torch.arange(length)[None], decoder.new_cache(1, length), length)
    return (hidden[0, -1] @ decoder.head.T)[TEXT:]


@torch.inference_mode()
def _decode(
    draws: Draws,
    plan: ImagePlan,
    protocol: DrawProtocol,
    seeds: Sequence[int],
    window: int = 0,
    decoder: Decoder | None = None,
) -> DecodeOutput:
    decoder = decoder or _decoder()
    vocabulary = Vocabulary(decoder, VISUAL_IDS, full_vocab=False)
    rows = [row for branch in zip(*draws, strict=True) for row in branch]
    keys = noise_keys(list(seeds), plan.codes, torch.device("cpu"))
    if window:
        return SpeculativeDecoder(decoder, vocabulary, protocol, plan, rows, keys, window).run()
    length = max(map(len, rows)) + 3  # more than there is, as the engine rounds it up
    return BatchDecoder(decoder, vocabulary, protocol, len(draws), length, plan).run(rows, keys)


def _check(draws: Draws, plan: ImagePlan, protocol: DrawProtocol = PROTOCOL) -> list[list[int]]:
    """The tokens of a batch, which are those of each draw alone, speculated or not, and the reference's."""
    found = zip(draws, SEEDS, strict=True)
    expected = [_reference(rows, plan, protocol, seed) for rows, seed in found]
    for window in (0, 1, 3, 16):
        output = _decode(draws, plan, protocol, SEEDS, window)
        assert output.codes.tolist() == expected
        assert output.failed_at.tolist() == [-1] * len(draws)
        for n, rows in enumerate(draws):
            alone = _decode([rows], plan, protocol, SEEDS[n : n + 1], window)
            assert alone.codes.tolist() == [expected[n]]
    assert len({tuple(codes) for codes in expected}) == len(draws)
    return expected


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (6, 2), (1, 9), (7, 1)])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_grid_of_any_shape_has_the_tokens_of_plain_decoding(
    height: int, width: int, temperature: float
) -> None:
    protocol = dataclasses.replace(PROTOCOL, temperature=temperature)
    _check(PROMPTS, ImagePlan(height, width, GUIDED), protocol)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("by_token", [False, True], ids=["constant", "by_token"])
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_branches_are_combined_by_their_weights(branches: int, by_token: bool, temperature: float) -> None:
    draws = [[*rows, [13]][:branches] for rows in PROMPTS]
    weights = tuple((2 + n % 3, 1.5 - n / 8)[: branches - 1] for n in range(12))
    plan = ImagePlan(3, 4, weights if by_token else weights[:1])
    _check(draws, plan, dataclasses.replace(PROTOCOL, temperature=temperature))


def test_weights_of_single_tokens_count() -> None:
    """Guidance that ends after the first half, as LlamaGen's `cfg_interval` does it."""
    whole = _decode(PROMPTS, ImagePlan(3, 4, GUIDED), PROTOCOL, SEEDS).codes
    half = _decode(PROMPTS, ImagePlan(3, 4, ((3.0,),) * 6 + ((1.0,),) * 6), PROTOCOL, SEEDS).codes
    assert whole[:, :6].tolist() == half[:, :6].tolist()
    assert (whole[:, 6:] != half[:, 6:]).any(1).all()


EMU3 = forced_tokens(3, 4, SpecialIds(1, 2, 3, 4, 5, 6, eol=14, eof=15))
FORCED = {
    "emu3": (3, 4, EMU3),
    "emu3_one_column": (4, 1, forced_tokens(4, 1, SpecialIds(1, 2, 3, 4, 5, 6, eol=14, eof=15))),
    "one_row": (1, 5, forced_tokens(1, 5, SpecialIds(1, 2, 3, 4, 5, 6, eol=14, eof=15))),
    "runs": (2, 5, {1: 14, 2: 15, 6: 16, 7: 14, 8: 15, 10: 17}),
}


@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("name", FORCED)
def test_forced_tokens_lie_between_the_codes(name: str, branches: int) -> None:
    height, width, forced = FORCED[name]
    draws = [[*rows, [13]][:branches] for rows in PROMPTS]
    weights = ((2.0, 0.75)[: branches - 1],)
    expected = _check(draws, ImagePlan(height, width, weights, forced))
    without = [
        _reference(rows, ImagePlan(height, width, weights), PROTOCOL, SEEDS[n])
        for n, rows in enumerate(draws)
    ]
    assert (without == expected) == (name == "one_row")  # where all of them follow the last code


def test_weights_belong_to_codes_not_to_slots() -> None:
    weights = tuple((1.5 + n % 3,) for n in range(12))
    _check(PROMPTS, ImagePlan(3, 4, weights, EMU3))


def test_a_forced_token_takes_no_forward_and_no_product_with_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths: list[int] = []
    products: list[int] = []
    forward, product = Decoder.forward, Linear.__call__

    def recorded(self: Decoder, inputs: Tensor, *arguments: Any) -> Tensor:
        widths.append(inputs.shape[1])
        return forward(self, inputs, *arguments)

    def counted(self: Linear, x: Tensor) -> Tensor:
        if isinstance(self.product, Plain) and self.product.weight.shape[0] == CODES and x.ndim == 2:
            products.append(len(x))
        return product(self, x)

    monkeypatch.setattr(Decoder, "forward", recorded)
    monkeypatch.setattr(Linear, "__call__", counted)
    output = _decode(PROMPTS, ImagePlan(3, 4, GUIDED, EMU3), PROTOCOL, SEEDS)
    assert widths == [5, *[1, 1, 1], *[2, 1, 1, 1], *[2, 1, 1, 1]]
    assert products == [6] * 12
    assert output.steps == [11] * 3


def test_speculation_pays_no_forward_for_a_forced_token() -> None:
    greedy = dataclasses.replace(PROTOCOL, temperature=0)
    output = _decode(PROMPTS, ImagePlan(3, 4, GUIDED, EMU3), greedy, SEEDS, window=2)
    assert max(output.steps) <= 11


@pytest.mark.parametrize("window", [0, 1, 4])
def test_scores_that_are_not_finite_are_named_by_their_code(window: int) -> None:
    weights = _weights()
    weights["model.embed_tokens.weight"][14] = torch.nan  # every end of line
    decoder = Decoder(CONFIG, weights)
    output = _decode(PROMPTS, ImagePlan(3, 4, GUIDED, EMU3), PROTOCOL, SEEDS, window, decoder)
    if window < 2:
        assert output.failed_at.tolist() == [4, 4, 4]
    else:  # a value that is NaN behind a token in its window spreads to it: masked, it is 0 times NaN
        assert all(0 < code <= 4 for code in output.failed_at.tolist())


def _as_embeddings(draws: Draws, branches: Sequence[int]) -> Draws:
    table = _decoder().embedding
    return [
        [table[list(row)].clone() if n in branches else row for n, row in enumerate(rows)] for rows in draws
    ]


@pytest.mark.parametrize("branches", [(0,), (1,), (0, 1)], ids=str)
def test_ids_and_their_embeddings_are_the_same_prompt(branches: Sequence[int]) -> None:
    plan = ImagePlan(3, 4, GUIDED, EMU3)
    assert _check(_as_embeddings(PROMPTS, branches), plan) == _check(PROMPTS, plan)


def test_embeddings_of_any_length_that_are_no_tokens_are_a_prompt() -> None:
    """As LlamaGen's text features, of which the negative rows are one tensor's beginning."""
    generator = torch.Generator().manual_seed(1)
    features, learned = torch.randn(3, 6, 32, generator=generator), torch.randn(6, 32, generator=generator)
    draws = [[features[n, :length], learned[:length]] for n, length in enumerate((6, 1, 3))]
    _check(draws, ImagePlan(3, 4, GUIDED))


def test_equal_prompts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = Decoder.forward

    def recorded(self: Decoder, inputs: Tensor, *arguments: Any) -> Tensor:
        rows.append(len(inputs))
        return forward(self, inputs, *arguments)

    monkeypatch.setattr(Decoder, "forward", recorded)
    decoder, negative = _decoder(), torch.randn(2, 32)
    for prompts in ([[1, 2], [3], [1, 2], [1, 2]], [[1, 2], negative, [1, 2], negative]):
        cache = decoder.new_cache(4, 2)
        with torch.inference_mode():
            hidden, lengths = prefill(decoder, prompts, cache, torch.device("cpu"))
        assert lengths.tolist() == [[len(prompt)] for prompt in prompts]
        assert hidden[0].equal(hidden[2])
        assert cache.keys[:, 0].equal(cache.keys[:, 2])
        assert not hidden[0].equal(hidden[1])
    assert rows == [2, 2]


def test_a_guess_is_the_token_above() -> None:
    decoder = _decoder()
    vocabulary = Vocabulary(decoder, VISUAL_IDS, full_vocab=False)
    keys = noise_keys([1], 15, torch.device("cpu"))
    with torch.inference_mode():
        speculation = SpeculativeDecoder(
            decoder, vocabulary, PROTOCOL, ImagePlan(3, 5), [[1]], keys, window=4
        )
        speculation.sampled_ids.copy_(torch.arange(100, 100 + speculation.sampled_ids.shape[1]))
        speculation._guess(torch.tensor([[3, 4, 5, 6]]))
    # The last two places of the first row repeat the last token; the second row repeats the first.
    assert speculation.sampled_ids[0, :8].tolist() == [100, 101, 102, 102, 102, 100, 101, 107]


def test_a_guess_above_skips_the_ends_of_lines() -> None:
    codes, above, forced = slot_tables(ImagePlan(2, 3, forced={3: 14}), 9)
    assert codes == [0, 1, 2, 5, 3, 4, 5, 5, 5]
    assert above == [-1, -1, -1, -1, 0, 1, 2, -1, -1]
    assert forced == [-1, -1, -1, 14, -1, -1, -1, -1, -1]
