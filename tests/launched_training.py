"""Tiny trainings, alone or as ranks of a launcher, for the tests of several processes and of faults."""

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from sar_eval.errors import SarEvalError
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.train.fit import TrainingJob, fit
from sar_eval.train.start import ShapeStart
from sar_eval.train.token_stream import WeightedPlace
from sar_eval.train.tokenizer import TokenizerOptions, export
from sar_eval.train.training_options import TrainingOptions

CODES = 64
SHAPE = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
}
SMALL: Mapping[str, Any] = {
    "steps": 6,
    "batch_size": 8,
    "micro": 2,
    "learning_rate": 1e-2,
    "warmup": 2,
    "save_every": 2,
    "log_every": 1,
    "precision": "float32",
    "window": 16,
}


class StopAfter(TrainerCallback):
    """Interrupts a training after a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, if it is time."""
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def make_data(root: Path, rows: int = 40) -> None:
    """A visual tokenizer, a shape and captioned shards of 4 x 4 tokens, in `root`."""
    torch.manual_seed(0)
    (root / "tokenizer").mkdir(parents=True)
    options = TokenizerOptions(levels=(4, 4, 4), width=16)
    export(FsqAutoencoder([4, 4, 4], 16).eval(), root / "tokenizer", options)
    (root / "shape.json").write_text(json.dumps(SHAPE))
    codes = np.random.default_rng(0).integers(0, CODES, (rows, 16))
    words = ("a red ring", "two blue squares")
    data = [{"tokens": row.tolist(), "caption": words[n % 2]} for n, row in enumerate(codes)]
    write_shards(data, root / "tokens", TOKEN_SCHEMA, rows_per_shard=16)


def job(root: Path, out: Path, *, tie: bool = True, stop: int = 0, **changed: Any) -> TrainingJob:
    """A training on `make_data`'s files, interrupted after step `stop`; `changed` are options."""
    return TrainingJob(
        start=ShapeStart(shape=str(root / "shape.json"), codebook_size=CODES, tie=tie),
        data=[WeightedPlace(root / "tokens")],
        visual_tokenizer=root / "tokenizer",
        out=out,
        callbacks=[StopAfter(stop)],
        options=TrainingOptions(**{**SMALL, **changed}),
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Of a finished checkpoint, in float32."""
    return {name: tensor.float() for name, tensor in load_file(out / "model.safetensors").items()}


def losses(out: Path) -> list[float]:
    """The points of a training's curve."""
    return [json.loads(line)["loss"] for line in (out / "loss.jsonl").read_text().splitlines()]


def train_in_ranks(
    make: Callable[[], TrainingJob], config: Path | None = None, ranks: int = 2
) -> list[str]:
    """Train in several new processes; returns what each one said of its end, "" if all went well.

    Args:
        make: makes the training, in each of them.
        config: a file of `accelerate launch`, whose variables the processes get; without one they have
            those of torchrun alone.
        ranks: number of processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.launched_training"])
    environment = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    environment |= launch_variables(config) if config else {}
    with ProcessPoolExecutor(ranks, context, max_tasks_per_child=1) as pool:
        each = [environment | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(ranks)]
        return list(pool.map(_train_as_a_rank, [make] * ranks, each))


def _train_as_a_rank(make: Callable[[], TrainingJob], environment: Mapping[str, str]) -> str:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        fit(make())
    except SarEvalError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def launch_variables(config: Path) -> dict[str, str]:
    """What `accelerate launch` would set: asked of itself."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    asked = ["--config_file", str(config), "--num_processes", "2", "script.py"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(asked))
    made = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
