"""What a training writes from a language model is drawn by vLLM as by the engine native."""

from pathlib import Path

from sar_eval.engines.native import NativeEngine
from sar_eval.engines.vllm import VllmEngine
from sar_eval.train.checkpoint_writer import save_checkpoint
from sar_eval.train.start import find_start
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.language_models import TEXTS, write_language_model

VISUAL = Path(__file__).parents[2] / "sar_eval" / "demo" / "tokenizer"


def test_a_start_from_a_language_model_draws(tmp_path: Path) -> None:
    start = find_start(VISUAL, init=str(write_language_model(tmp_path / "language_model")), tie=False)
    save_checkpoint(*start.load("eager"), VISUAL, {(4, 4)}, tmp_path / "checkpoint")
    draws = [make_draw(Prompt(str(n), text), 0, 7) for n, text in enumerate(TEXTS)]
    tokens = []
    for engine in (NativeEngine, VllmEngine):
        with engine(
            str(tmp_path / "checkpoint"), DrawProtocol("test", 32, guidance=3.0), dtype="float32"
        ) as made:
            tokens.append([generation.tokens for generation in made.generate(draws)])
    assert tokens[0] == tokens[1]
