"""Rollouts of the engine native: log-probabilities of its own tokens, and weights that change under it."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sar_eval.decoding.loop import BatchDecoder, DecodeOutput
from sar_eval.decoding.rollouts import Rollout
from sar_eval.decoding.sampling import log_probabilities, process_logits
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw

PROTOCOL = DrawProtocol("test", 32, guidance=3.0, negative_prompt="a cross")
TEXTS = ["a photo of a red star", "a ring", "a sketch of two blue circles and a green heart", "a cross"]
Weights = dict[str, Tensor]


def _draws(number: int = 4) -> list[Draw]:
    return [make_draw(Prompt(f"p{i}", TEXTS[i % 4]), i, run_seed=7) for i in range(number)]


def _roll(engine: NativeEngine, draws: Sequence[Draw]) -> dict[str, Rollout]:
    return {r.draw.key: r for future in engine.roll(draws) for r in future.result()}


def _logits(engine: NativeEngine, rollout: Rollout) -> Tensor:
    """Logits `[branches, N, V]` of every token, from one forward over prompt and image."""
    ids = [code + engine.checkpoint.text_vocab_size for code in rollout.generation.tokens]
    rows = []
    for prompt in rollout.prompts:
        tokens = torch.tensor([[*prompt, *ids[:-1]]])
        cache = engine.decoder.new_cache(1, tokens.shape[1])
        positions = torch.arange(tokens.shape[1])[None]
        with torch.inference_mode():
            hidden = engine.decoder.forward(tokens, positions, cache, tokens.shape[1])
            rows.append(engine.vocabulary.head(hidden[0, len(prompt) - 1 :]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 1.0},
        {"guidance": 6.0, "top_k": 9, "temperature": 0.8},
        {"guidance": 1.0, "top_p": 0.7},
        {"temperature": 0.0},
    ],
    ids=str,
)
def test_log_probabilities_are_those_of_the_logits(
    tiny_checkpoint: Path, changes: dict[str, float]
) -> None:
    protocol = dataclasses.replace(PROTOCOL, **changes)
    with NativeEngine(str(tiny_checkpoint), protocol, batch_size=3) as engine:
        drawn = {g.key: g.tokens for g in engine.generate(_draws())}
        rollouts = _roll(engine, _draws())
        assert {key: r.generation.tokens for key, r in rollouts.items()} == drawn
        for rollout in rollouts.values():
            assert rollout.generation.image is not None
            logits, codes = _logits(engine, rollout), torch.tensor(rollout.generation.tokens)
            guided = log_probabilities(process_logits(logits.flatten(0, 1), protocol), codes)
            prompted = log_probabilities(logits[0] / (protocol.temperature or 1), codes)
            for found, expected in ((rollout.log_probs, guided), (rollout.conditional, prompted)):
                assert (found.dtype, found.shape) == ("float32", (16,))
                torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=0)


def test_prompts_are_those_of_the_draw(tiny_checkpoint: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, prefixes="simplear", negative_prompt="a ring")
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        for draw in _draws():
            [rollout] = _roll(engine, [draw]).values()
            assert list(map(list, rollout.prompts)) == engine.prompt_ids([draw])


def test_failed_draws_have_an_error_and_no_log_probabilities(tiny_checkpoint: Path) -> None:
    long = make_draw(Prompt("long", " ".join(["red ring"] * 150)), 0, 7)
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        engine.decoder.embedding[engine.checkpoint.text_tokenizer.token_to_id("star")] = torch.nan
        rollouts = _roll(engine, [long, *_draws()])
    errors = {key: r.generation.error for key, r in rollouts.items() if r.generation.error}
    assert errors.pop("long/0", "").startswith("the prompt takes 302 tokens")
    assert errors == {"p0/0": "the scores of visual token 0 are NaN or infinite"}
    sizes = {key: (len(r.log_probs), len(r.conditional)) for key, r in rollouts.items()}
    assert sizes == {key: (16, 16) if key in ("p1/1", "p2/2", "p3/3") else (0, 0) for key in rollouts}


def test_waves_are_halved_where_memory_runs_out(tiny_checkpoint: Path) -> None:
    class Limited(NativeEngine):
        most = 2

        def decode_with_log_probs(self, draws: Sequence[Draw]) -> DecodeOutput:
            if len(draws) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            return super().decode_with_log_probs(draws)

    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        expected = {key: r.generation.tokens for key, r in _roll(engine, _draws(5)).items()}
    with Limited(str(tiny_checkpoint), PROTOCOL) as engine:
        assert {key: r.generation.tokens for key, r in _roll(engine, _draws(5)).items()} == expected
        engine.most = 0
        errors = {r.generation.error for r in _roll(engine, _draws(2)).values()}
    assert errors == {"out of memory for a single image on cpu"}


def test_buffers_with_log_probabilities_also_draw_without(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that never asks for them pays nothing; a trainer's evaluation captures no graphs anew."""
    scored = []
    init = BatchDecoder.__init__
    monkeypatch.setattr(BatchDecoder, "__init__", lambda self, *a: scored.append(a[-1]) or init(self, *a))
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        list(engine.generate(_draws()))
        assert engine.batch is not None
        assert engine.batch.log_probs.numel() == 0
        _roll(engine, _draws())
        list(engine.generate(_draws()))
    assert scored == [False, True]


@pytest.mark.parametrize("engine_class", [HfEngine, NativeEngine])
def test_engines_without_log_probabilities_say_so(tiny_checkpoint: Path, engine_class: Any) -> None:
    options = {"speculate": True} if engine_class is NativeEngine else {}
    with (
        engine_class(str(tiny_checkpoint), PROTOCOL, **options) as engine,
        pytest.raises(BadInput, match="gives no log-probabilities"),
    ):
        _roll(engine, _draws())


@pytest.fixture(params=["tied", "untied"])
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint, or one whose head is not its embedding."""
    if request.param == "tied":
        return tiny_checkpoint
    return _with_weights(tiny_checkpoint, tmp_path / "untied", _changed(_untied(tiny_checkpoint), 1), False)


def _untied(folder: Path) -> Weights:
    weights = load_file(folder / "model.safetensors")
    return weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}


def _changed(weights: Weights, seed: int) -> Weights:
    """As after a few large steps of training."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


def _with_weights(folder: Path, out: Path, weights: Weights, tied: bool) -> Path:
    """A copy of a checkpoint with other weights."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (out / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": tied}
    (out / "config.json").write_text(json.dumps(config))
    tokenizer = {"visual_tokenizer": str(_visual_folder(folder))}
    settings = json.loads((folder / "sar_eval.json").read_text()) | tokenizer
    (out / "sar_eval.json").write_text(json.dumps(settings))
    save_file(weights, out / "model.safetensors")
    return out


def _visual_folder(folder: Path) -> Path:
    return NativeEngine(str(folder), PROTOCOL).checkpoint.visual_folder.resolve()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("full_vocab", [False, True], ids=["visual_only", "full_vocab"])
def test_new_weights_draw_what_a_fresh_engine_draws(
    checkpoint: Path, tmp_path: Path, dtype: str, full_vocab: bool
) -> None:
    protocol = dataclasses.replace(PROTOCOL, full_vocab=full_vocab)
    trained = _changed(load_file(checkpoint / "model.safetensors"), 2)
    tied = "lm_head.weight" not in trained
    fresh_folder = _with_weights(checkpoint, tmp_path / "fresh", trained, tied)
    with NativeEngine(str(fresh_folder), protocol, dtype=dtype) as fresh:
        expected = _roll(fresh, _draws())
    with NativeEngine(str(checkpoint), protocol, dtype=dtype) as engine:
        assert engine.vocabulary.head.packed == (dtype == "bfloat16")
        before = _roll(engine, _draws())
        engine.load_weights(iter(trained.items()))
        after = _roll(engine, _draws())
    for key, rollout in expected.items():
        assert after[key].generation.tokens == rollout.generation.tokens
        assert after[key].log_probs.tolist() == rollout.log_probs.tolist()
        assert after[key].conditional.tolist() == rollout.conditional.tolist()
        assert not (before[key].log_probs == rollout.log_probs).any()


def _addresses(engine: NativeEngine) -> Iterator[int]:
    decoder = engine.decoder
    yield from (tensor.data_ptr() for tensor in (decoder.embedding, decoder.head, decoder.norm))
    yield engine.vocabulary.head.product.weight.data_ptr()
    for layer in decoder.layers:
        yield from (norm.data_ptr() for norm in layer.norms.values())
        for plain in (linear.product for linear in (layer.qkv, layer.out, layer.gate_up, layer.down)):
            yield plain.weight.data_ptr()
            yield plain.bias.data_ptr() if plain.bias is not None else 0


def test_weights_are_copied_in_place(checkpoint: Path) -> None:
    """CUDA graphs hold the addresses of the weights."""
    trained = _changed(load_file(checkpoint / "model.safetensors"), 2)
    with NativeEngine(str(checkpoint), PROTOCOL) as engine:
        before = list(_addresses(engine))
        engine.load_weights(trained.items())
        assert list(_addresses(engine)) == before
        assert engine.vocabulary.head.product.weight.equal(
            engine.decoder.head[engine.vocabulary.first_id :]
        )


def test_a_tied_head_may_be_among_the_weights_if_it_is_the_embedding(tiny_checkpoint: Path) -> None:
    weights = _untied(tiny_checkpoint)
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        before = _roll(engine, _draws(1))
        engine.load_weights(weights.items())
        assert _roll(engine, _draws(1))["p0/0"].log_probs.tolist() == before["p0/0"].log_probs.tolist()
        with pytest.raises(BadInput, match=r"the new weights: .* lm_head\.weight differs"):
            engine.load_weights((weights | {"lm_head.weight": weights["lm_head.weight"] + 1}).items())


def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied(tiny_checkpoint: Path) -> None:
    weights = load_file(tiny_checkpoint / "model.safetensors")
    trained = _changed(weights, 2)
    norm = "model.norm.weight"
    wrong = [
        ({n: t for n, t in trained.items() if n != norm}, f"the weights have no tensor '{norm}'"),
        (trained | {"model.value.weight": torch.ones(3)}, r"no part of the decoder .*model\.value\.weight"),
        (trained | {norm: torch.ones(3)}, rf"tensor '{norm}' is \(3,\), config.json says"),
        (trained | {norm: trained[norm].int()}, "quantised weights are not supported"),
    ]
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        before = _roll(engine, _draws(1))["p0/0"]
        for new, message in wrong:
            with pytest.raises(BadInput, match=f"the new weights: .*{message}"):
                engine.load_weights(new.items())
        assert _roll(engine, _draws(1))["p0/0"].log_probs.tolist() == before.log_probs.tolist()
    with (
        HfEngine(str(tiny_checkpoint), PROTOCOL) as engine,
        pytest.raises(BadInput, match="cannot replace"),
    ):
        engine.load_weights(weights.items())
