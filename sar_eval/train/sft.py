"""Fine-tune a checkpoint on (usually small and clean) token shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint
from sar_eval.storage.shards import Place
from sar_eval.train.decoder import DecoderOptions, TrainingProgress, attention_implementation, fit


@dataclass(frozen=True, slots=True)
class Selected:
    """What of `selection.json`, which `train select` writes, is read here."""

    prompts_of_a_test: int = 0


def sft(
    checkpoint: Path,
    data: Sequence[Place],
    visual_tokenizer: Path,
    out: Path,
    options: DecoderOptions,
    progress: TrainingProgress = lambda step, steps, loss: None,
) -> None:
    """Fine-tune the decoder in `checkpoint` and write a checkpoint folder (see `decoder.fit`).

    Raises:
        BadInput: `checkpoint` is not a checkpoint folder; and see `decoder.fit`.
    """
    if not (checkpoint / "config.json").is_file():
        raise BadInput(f"no config.json in {checkpoint}: --ckpt takes a checkpoint folder")
    torch.manual_seed(options.seed)
    model, tokenizer = _load(checkpoint)
    tested = _test_prompts(Checkpoint(str(checkpoint), checkpoint, visual_tokenizer), data)
    training = {"by": "sft", "test_prompts": tested} if tested else None
    fit(model, tokenizer, data, visual_tokenizer, out, options, progress, training)


def _test_prompts(start: Checkpoint, data: Sequence[Place]) -> int:
    """Prompts of test suites among what `train select` chose, or that the start was trained on already."""
    paths = [path for place in data if (path := Path(place) / "selection.json").is_file()]
    selected = [convert(read_json(path), Selected, str(path)).prompts_of_a_test for path in paths]
    return max(sum(selected), start.test_prompts)


def _load(checkpoint: Path) -> tuple[Any, Any]:
    """The decoder in float32 and the text tokenizer of a checkpoint folder."""
    read_json(checkpoint / "config.json")
    attention = attention_implementation()
    try:
        # Not AutoTokenizer: for `model_type: qwen2` it builds Qwen2's own class, which adds a token.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
        model = Qwen2ForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation=attention
        )
    except Exception as error:
        # Whatever transformers does not like about the files.
        first = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"{checkpoint} cannot be loaded for training: {type(error).__name__}: {first}; "
            f"`sar-eval ckpt info {checkpoint}` looks at its files"
        ) from error
    return model, tokenizer
