"""Engines: equal tokens from every implementation, waves, memory, failures of single draws."""

import dataclasses
import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.decoding.loop import BatchDecoder, CudaGraphStep, DecodeOutput
from sar_eval.decoding.memory import draw_bytes, free_bytes, kv_bytes, max_draws
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, DeviceLost
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw

PROTOCOL = DrawProtocol("test", 32, guidance=3.0, negative_prompt="a cross")
TEXTS = ["a photo of a red star", "a ring", "a sketch of two blue circles and a green heart", "a cross"]


def _draws(number: int = 6) -> list[Draw]:
    return [make_draw(Prompt(f"p{i}", TEXTS[i % 4]), i, run_seed=7) for i in range(number)]


def _tokens(engine: NativeEngine | HfEngine, number: int = 6) -> dict[str, tuple[int, ...]]:
    with engine:
        generations = list(engine.generate(_draws(number)))
    assert all(g.error is None and len(g.tokens) == 16 for g in generations)
    return {g.key: g.tokens for g in generations}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 1.0},
        {"guidance": 6.0, "top_k": 9, "temperature": 0.8},
        {"top_p": 0.7},
        {"temperature": 0.0},
        {"full_vocab": True},
        {"min_p": 0.05, "guidance": 1.0},
    ],
    ids=str,
)
def test_every_engine_draws_the_same_tokens(tiny_checkpoint: Path, changes: dict[str, float]) -> None:
    protocol = dataclasses.replace(PROTOCOL, **changes)
    expected = _tokens(HfEngine(str(tiny_checkpoint), protocol))
    assert len(set(expected.values())) >= 3  # greedy: two of the texts give the same tokens
    assert _tokens(NativeEngine(str(tiny_checkpoint), protocol, batch_size=4)) == expected
    for window in (1, 3, 16):
        engine = NativeEngine(str(tiny_checkpoint), protocol, speculate=True, window=window)
        assert _tokens(engine) == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compiled_step_draws_the_same_tokens(tiny_checkpoint: Path, dtype: str) -> None:
    """In bfloat16 with packed weights."""
    expected = _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL, dtype=dtype))
    assert _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL, dtype=dtype, compile=True)) == expected


def test_slots_that_are_not_filled_are_masked(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where captured steps attend to a rounded number of slots."""
    expected = _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL))
    monkeypatch.setattr(
        BatchDecoder,
        "_attended_length",
        lambda self, filled: self.max_prompt_length + self.image_tokens - 1,
    )
    assert _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL)) == expected


def test_a_captured_step_is_replayed_for_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logic around CUDA graphs, with a stand-in for the GPU."""

    class Graph:
        def __init__(self) -> None:
            self.calls: list[int] = []

        def pool(self) -> str:
            return "pool"

        def replay(self) -> None:
            done.extend(self.calls)

    @contextmanager
    def on_device(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    @contextmanager
    def capture(
        graph: Graph, pool: str | None, stream: torch.device, capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert [stream] == current == [second]  # the engine's own card, not the process's first
        pools.append(pool)
        before = len(done)
        yield
        graph.calls = done[before:]
        del done[before:]  # a captured step is recorded, not run

    done: list[int] = []
    pools: list[str | None] = []
    current: list[torch.device] = []
    second = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "device", on_device)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    step = CudaGraphStep(done.append, second)
    for length in (256, 256, 256, 512, 512, 256):
        step(length)
    assert done == [256, 256, 256, 512, 512, 256]
    assert pools == [None, "pool"]


def test_text_tokens_are_counted_and_become_code_0(tiny_checkpoint: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, full_vocab=True)
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        generations = list(engine.generate(_draws()))
    assert sum(g.out_of_range_tokens for g in generations) > 0
    assert all(g.out_of_range_tokens <= g.tokens.count(0) and max(g.tokens) < 64 for g in generations)


def test_speculation_reports_its_steps(tiny_checkpoint: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, temperature=0)  # an image that soon repeats itself
    with NativeEngine(str(tiny_checkpoint), protocol, speculate=True) as engine:
        steps = [g.steps for g in engine.generate(_draws())]
    assert all(4 <= number <= 15 for number in steps)
    assert min(steps) < 15
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        assert {g.steps for g in engine.generate(_draws())} == {15}


def _with_long_prompt() -> list[Draw]:
    return [make_draw(Prompt("long", " ".join(["red ring"] * 150)), 0, 7), *_draws(2)]


def test_a_prompt_that_is_too_long_fails_alone(tiny_checkpoint: Path) -> None:
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        generations = {g.key: g for g in engine.generate(_with_long_prompt())}
    assert generations["long/0"].error == (
        "the prompt takes 302 tokens, and 240 fit beside 16 visual tokens: "
        "shorten it, or cut it with --truncate"
    )
    assert [generations[d.key].error for d in _draws(2)] == [None, None]


def test_truncate_keeps_the_beginning_and_the_image_token(tiny_checkpoint: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, truncate=True)
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        [cut, _] = engine.prompt_ids(_with_long_prompt()[:1])
        whole = engine.checkpoint.prompt_ids(_with_long_prompt()[0].prompt.text)
        [generation] = engine.generate(_with_long_prompt()[:1])
    assert (len(cut), cut[:-1], cut[-1]) == (240, whole[:239], whole[-1])
    assert generation.error is None


def test_every_text_of_a_block_is_tokenized_once(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _LimitedMemory(str(tiny_checkpoint), PROTOCOL, batch_size=9) as engine:  # plans waves anew
        texts: list[str] = []
        tokenize = type(engine.checkpoint).prompt_ids
        monkeypatch.setattr(
            type(engine.checkpoint),
            "prompt_ids",
            lambda self, text: texts.append(text) or tokenize(self, text),
        )
        assert all(g.image for g in engine.generate(_draws(9)))
    assert sorted(texts) == sorted({draw.prompt.text for draw in _draws(9)})


def test_a_generation_says_how_large_its_wave_was(tiny_checkpoint: Path) -> None:
    with NativeEngine(str(tiny_checkpoint), PROTOCOL, batch_size=2) as engine:
        provenance = [g.provenance for g in engine.generate(_draws(3))]
    assert sorted(p["wave_size"] for p in provenance) == [1, 2, 2]
    assert {p["device"] for p in provenance} == {"cpu"}


def test_a_nan_fails_its_own_draw_and_is_named(tiny_checkpoint: Path) -> None:
    for engine in (
        NativeEngine(str(tiny_checkpoint), PROTOCOL),
        NativeEngine(str(tiny_checkpoint), PROTOCOL, speculate=True),
    ):
        with engine:
            word = engine.checkpoint.text_tokenizer.token_to_id("star")
            engine.decoder.embedding[word] = torch.nan
            generations = {g.key: g for g in engine.generate(_draws(4))}
        error = "the scores of visual token 0 are NaN or infinite"
        assert (generations["p0/0"].error, generations["p0/0"].image) == (error, None)
        assert all(generations[f"p{i}/{i}"].error is None for i in (1, 2, 3))


class _LimitedMemory(NativeEngine):
    """Runs out of memory when a wave has more than `max_draws` draws."""

    max_draws = 2

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        if len(draws) > self.max_draws:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return super().decode_tokens(draws)


def test_waves_are_halved_where_memory_runs_out(tiny_checkpoint: Path) -> None:
    expected = _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL), 9)
    assert _tokens(_LimitedMemory(str(tiny_checkpoint), PROTOCOL, batch_size=9), 9) == expected


def test_an_image_that_never_fits_fails_with_a_reason(tiny_checkpoint: Path) -> None:
    engine = _LimitedMemory(str(tiny_checkpoint), PROTOCOL)
    engine.max_draws = 0
    with engine:
        generations = list(engine.generate(_draws(3)))
    assert [g.error for g in generations] == ["out of memory for a single image on cpu"] * 3


def test_finished_waves_are_returned_before_a_later_one_fails(tiny_checkpoint: Path) -> None:
    class Breaking(NativeEngine):
        waves = 0

        def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
            self.waves += 1
            if self.waves == 3:
                raise RuntimeError("broken")
            return super().decode_tokens(draws)

    with Breaking(str(tiny_checkpoint), PROTOCOL, batch_size=2) as engine:
        generations = engine.generate(_draws(6))
        keys = [next(generations).key, next(generations).key]
        with pytest.raises(RuntimeError, match="broken"):
            next(generations)
    assert keys == ["p0/0", "p1/1"]


@pytest.mark.parametrize(
    ("max_images", "error"),
    [(1, None), (0, "out of memory while its tokens were decoded to pixels on cpu")],
)
def test_images_are_decoded_one_by_one_where_memory_is_short(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, max_images: int, error: str | None
) -> None:
    original = VisualTokenizer.decode

    def decode(self: VisualTokenizer, codes: torch.Tensor) -> torch.Tensor:
        if len(codes) > max_images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, codes)

    monkeypatch.setattr(VisualTokenizer, "decode", decode)
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        assert {g.error for g in engine.generate(_draws())} == {error}


def test_swapped_files_of_the_visual_tokenizer_are_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint.parent / "tokenizer"
    for name, source in (("encoder", "decoder"), ("decoder", "encoder"), ("config", "config")):
        suffix = "json" if name == "config" else "jit"
        shutil.copy(folder / f"{source}.{suffix}", tmp_path / f"{name}.{suffix}")
    swapped = NativeEngine(str(tiny_checkpoint), PROTOCOL, visual_tokenizer=str(tmp_path))
    with swapped as engine, pytest.raises(BadInput, match=r"are encoder\.jit and decoder\.jit swapped"):
        list(engine.generate(_draws(1)))


def test_a_gpu_failure_is_raised_as_device_lost(tiny_checkpoint: Path) -> None:
    class Lost(NativeEngine):
        def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nmore")

    engine = Lost(str(tiny_checkpoint), PROTOCOL)
    engine.device = "cuda"
    with pytest.raises(DeviceLost, match=r"cuda: CUDA error: device-side assert triggered$"):
        engine._none_if_out_of_memory(lambda: engine.decode_tokens(_draws(1)))


def test_waves_are_equal_and_as_large_as_memory_allows(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    run = BatchDecoder.run
    monkeypatch.setattr(
        BatchDecoder, "run", lambda self, *a: sizes.append(self.batch_size) or run(self, *a)
    )
    _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL, batch_size=5), 12)
    assert sizes == [4, 4, 4]
    config = NativeEngine(str(tiny_checkpoint), PROTOCOL).checkpoint.decoder_config
    per_draw = draw_bytes(config, 4, 2, 11 + 16, 64)
    monkeypatch.setattr("sar_eval.decoding.memory.free_bytes", lambda device: int(per_draw * 2.9 / 0.85))
    sizes.clear()
    _tokens(NativeEngine(str(tiny_checkpoint), PROTOCOL, batch_size=5), 6)
    assert sizes == [2, 2, 2]


def test_buffers_are_reused_for_the_next_block(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU new buffers would require new graphs."""
    sizes = []
    init = BatchDecoder.__init__
    monkeypatch.setattr(BatchDecoder, "__init__", lambda self, *a: sizes.append(a[3]) or init(self, *a))
    with NativeEngine(str(tiny_checkpoint), PROTOCOL) as engine:
        first = {g.key: g.tokens for g in engine.generate(_draws(2))}
        second = {g.key: g.tokens for g in engine.generate(_draws(4)[2:])}
        assert sizes == [2]
        again = {g.key: g.tokens for g in engine.generate(_draws(4))}
    assert sizes == [2, 4]
    assert first | second == again


def test_memory_is_computed_from_the_configuration() -> None:
    config = DecoderConfig(896, 4864, 24, 14, 2, 64, 215_672, 1e6, 1e-6, True, 32_768)
    assert kv_bytes(config, 2) == 12_288  # the figure of the paper's 0.5B model in bfloat16
    assert draw_bytes(config, 2, 2, 4160, 64_000) == 2 * 4160 * 12_288 + 64_000 * 28
    assert (max_draws(1000, 100), max_draws(10, 100)) == (8, 1)
    assert free_bytes("cpu") > 10**8


def test_webp_is_the_same_image(tiny_checkpoint: Path) -> None:
    images = {}
    for image_format in ("png", "webp"):
        with NativeEngine(str(tiny_checkpoint), PROTOCOL, image_format=image_format) as engine:
            [generation] = engine.generate(_draws(1))
        with Image.open(io.BytesIO(generation.image or b"")) as image:
            assert image.format == image_format.upper()
            images[image_format] = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(images["png"], images["webp"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_format": "jpeg"}, "unknown image format 'jpeg': png or webp"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"window": 0}, "window is 0"),
        ({"device": "gpu:1"}, "unknown device 'gpu:1': cpu, cuda, or cuda:NUMBER"),
    ],
)
def test_invalid_options_are_refused(
    tiny_checkpoint: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        NativeEngine(str(tiny_checkpoint), PROTOCOL, **options)


def test_a_card_that_is_not_there_is_refused(tiny_checkpoint: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"device cuda:99: torch finds \d+ GPUs here"),
        NativeEngine(str(tiny_checkpoint), PROTOCOL, device="cuda:99"),
    ):
        pass


def test_memory_is_that_of_the_engines_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda": (3, 9), "cuda:1": (5, 9)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", free.__getitem__)
    assert (free_bytes("cuda"), free_bytes("cuda:1")) == (3, 5)


def test_an_image_larger_than_the_context_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(BadInput, match="256 visual tokens; the checkpoint has 256 positions"):
        NativeEngine(str(tiny_checkpoint), DrawProtocol("test", 128))
