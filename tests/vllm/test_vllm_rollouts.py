"""Rollouts on vLLM: their log-probabilities, and a trainer's weights in the running model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sar_eval.decoding.load import load_decoder
from sar_eval.decoding.loop import Vocabulary
from sar_eval.decoding.rollouts import Rollout
from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.decoding.transformer import Decoder
from sar_eval.engines.native import NativeEngine
from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw
from sar_eval.vllm_guided.driver import ImageRequest
from tests.vllm.engines import codes, reference_engine
from tests.vllm.widen import widen_checkpoint

PROTOCOL = DrawProtocol("test", 64, guidance=3.0)
TEXTS = ("a photo of one red ring", "a photo of two blue stars", "a photo of a star above a ring")
ROUNDING = 2e-4  # nats, between two implementations in float32


def _draws() -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", text), 0, 5) for n, text in enumerate(TEXTS)]


def _roll(engine: TokenEngine, draws: Sequence[Draw]) -> list[Rollout]:
    rollouts = {r.draw.key: r for future in engine.roll(draws) for r in future.result()}
    return [rollouts[draw.key] for draw in draws]


def _changed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As after some steps of training."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


def _demo_weights() -> dict[str, Tensor]:
    return find_checkpoint("demo:sft").read_weights("cpu", torch.float32)


def _log_probs(decoder: Decoder, rollout: Rollout, guidance: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a rollout's tokens, with guidance and without, from plain PyTorch."""
    visual_ids = find_checkpoint("demo:sft").visual_ids
    vocabulary = Vocabulary(decoder, visual_ids, full_vocab=False)
    visual_codes = torch.tensor(rollout.generation.tokens)
    logits = []
    for prompt in rollout.prompts:
        ids = [*prompt, *(visual_codes[:-1] + visual_ids.start).tolist()]
        cache = decoder.new_cache(1, len(ids))
        with torch.inference_mode():
            hidden = decoder.forward(torch.tensor([ids]), torch.arange(len(ids))[None], cache, len(ids))
            logits.append(vocabulary.head(hidden[0, len(prompt) - 1 :]).float())
    prompted, other = logits[0], logits[-1]
    guided = other + guidance * (prompted - other)
    return tuple(x.log_softmax(-1).gather(1, visual_codes[:, None])[:, 0] for x in (guided, prompted))


def _gap(trainer: Decoder, rollouts: Sequence[Rollout]) -> float:
    """Mean absolute difference of the log-probabilities of trainer and engine."""
    gaps = [
        abs(_log_probs(trainer, r, PROTOCOL.guidance)[0] - torch.from_numpy(r.log_probs)) for r in rollouts
    ]
    return float(torch.stack(gaps).mean())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_rollouts_have_the_log_probabilities_of_plain_pytorch(guidance: float) -> None:
    decoder = load_decoder(find_checkpoint("demo:sft"), "cpu", "float32")
    with VllmEngine("demo:sft", replace(PROTOCOL, guidance=guidance)) as engine:
        *rollouts, long = _roll(engine, [*_draws(), make_draw(Prompt("long", "a red ring " * 200), 0, 5)])
        drawn = {g.key: g for g in engine.generate(_draws())}
    assert (long.generation.error or "").startswith("the prompt takes ")
    assert (len(long.log_probs), len(long.conditional)) == (0, 0)
    for draw, rollout in zip(_draws(), rollouts, strict=True):
        assert (rollout.draw, rollout.generation.error) == (draw, None)
        assert rollout.generation.tokens == drawn[draw.key].tokens
        assert rollout.generation.image == drawn[draw.key].image
        assert len(rollout.prompts) == (1 if guidance == 1 else 2)
        for found, expected in zip(
            (rollout.log_probs, rollout.conditional), _log_probs(decoder, rollout, guidance), strict=True
        ):
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=ROUNDING, rtol=0)


def test_top_k_without_guidance_leaves_conditional_empty() -> None:
    with VllmEngine("demo:sft", replace(PROTOCOL, guidance=1.0, top_k=3)) as engine:
        [rollout] = _roll(engine, _draws()[:1])
    assert (len(rollout.log_probs), len(rollout.conditional)) == (64, 0)


@pytest.mark.parametrize(
    "options",
    [{"enable_prefix_caching": True}, {"tensor_parallel_size": 2}],
    ids=["prefix_cache", "two_processes"],
)
def test_new_weights_draw_what_native_draws_with_them(options: dict[str, Any]) -> None:
    new = _changed(_demo_weights())
    with NativeEngine("demo:sft", PROTOCOL) as native:
        native.load_weights(new.items())
        expected = _roll(native, _draws())
    with VllmEngine("demo:sft", PROTOCOL, **options) as engine:
        with pytest.raises(BadInput, match=r"the new weights: .*model\.norm\.weight"):
            engine.load_weights((n, t) for n, t in new.items() if n != "model.norm.weight")
        stale = _roll(engine, _draws())
        for _ in range(2):  # the second time from weights that were loaded into the running model
            engine.load_weights(iter(new.items()))
            rollouts = _roll(engine, _draws())
    for rollout, other in zip(rollouts, expected, strict=True):
        assert rollout.generation.tokens == other.generation.tokens
        assert abs(rollout.log_probs - other.log_probs).max() < ROUNDING
        assert abs(rollout.conditional - other.conditional).max() < ROUNDING
    trainer = Decoder(find_checkpoint("demo:sft").decoder_config, new)
    assert _gap(trainer, rollouts) < ROUNDING
    assert _gap(trainer, stale) > 10 * ROUNDING  # what it sees of an engine that was not synchronised


def test_half_precision_is_packed_anew() -> None:
    new = _changed(_demo_weights())
    with NativeEngine("demo:sft", PROTOCOL, dtype="bfloat16") as native:
        native.load_weights(new.items())
        expected = _roll(native, _draws())
    with VllmEngine("demo:sft", PROTOCOL, dtype="bfloat16") as engine:
        engine.load_weights(new.items())
        rollouts = _roll(engine, _draws())
    for rollout, other in zip(rollouts, expected, strict=True):
        same = [a == b for a, b in zip(rollout.generation.tokens, other.generation.tokens, strict=True)]
        common = same.index(False) if False in same else len(same)
        assert common >= 8  # two roundings of near ties may part later
        assert abs(rollout.log_probs[:common] - other.log_probs[:common]).mean() < 0.1


@pytest.mark.parametrize("full", [False, True], ids=["visual_only", "full_vocab"])
@pytest.mark.parametrize("name", ["dev_tied", "dev_untied"])
def test_every_kind_of_head_takes_new_weights(parity: Path, tmp_path: Path, name: str, full: bool) -> None:
    """The tokens of an engine that was started with other weights are those of one started with these."""
    folder = widen_checkpoint(parity / "simplear" / name, tmp_path / "wide")
    new = _changed(load_file(folder / "model.safetensors"))
    protocol = replace(PROTOCOL, full_vocab=full)
    requests = [
        ImageRequest(((1, 5 + n, 2), (1, 9, 2)), n, 3.0, return_log_probabilities=True) for n in range(4)
    ]
    with reference_engine(folder, 4, protocol=protocol) as engine:
        engine.load_weights(new.items())
        found = engine.driver.generate(requests)
    save_file(new, folder / "model.safetensors")
    with reference_engine(folder, 4, protocol=protocol) as engine:
        expected = engine.driver.generate(requests)
        assert codes(engine, found) == codes(engine, expected)
    assert [o.log_probabilities for o in found] == [o.log_probabilities for o in expected]


def test_a_core_in_another_process_takes_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with (
        VllmEngine("demo:sft", PROTOCOL) as engine,
        pytest.raises(BadInput, match="leave out VLLM_ENABLE_V1_MULTIPROCESSING"),
    ):
        engine.load_weights(_demo_weights().items())
