"""What a folder is that is no checkpoint, and the command that makes one of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

_ZERO = "python zero_to_fp32.py . OUT --safe_serialization"
_NO_WAY = "only weights in the format of transformers (config.json, safetensors or .bin) are read"
# What is looked for in the folder or one below it, what it is, and the way on. The first that fits counts.
_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("zero_to_fp32.py", "global_step*", "*_optim_states.pt", "mp_rank_*_model_states.pt"),
        "a training folder of DeepSpeed (ZeRO): its weights are divided among processes",
        f"join them with `{_ZERO}` there, and put config.json and the tokenizer's files into OUT",
    ),
    (
        ("*.distcp", ".metadata", "pytorch_model_fsdp_*", "*/*/.metadata"),
        "a sharded training folder of FSDP (torch.distributed.checkpoint)",
        "join it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER OUT.bin`",
    ),
    (
        ("model_world_size_*_rank_*.pt",),
        "a training folder of verl, whose weights are divided among processes",
        "join them with `python -m verl.model_merger merge --backend fsdp --local_dir . --target_dir OUT`",
    ),
    (
        ("mp_rank_*", "iter_*", "latest_checkpointed_iteration.txt", "model_optim_rng.pt"),
        "a training folder of Megatron",
        "convert it to transformers' format with Megatron's tools/checkpoint/convert.py",
    ),
    (
        ("*.gguf",),
        "a GGUF file of llama.cpp, which is quantised and has no visual tokens",
        "use the checkpoint that it was made from",
    ),
    (
        ("model_index.json",),
        "a pipeline of diffusers",
        "it is no decoder of tokens; draw with --engine diffusers, naming the folder with model_index.json",
    ),
    (("*.onnx",), "an ONNX model", _NO_WAY),
    (("tf_model.h5", "*.ckpt.index", "saved_model.pb"), "a TensorFlow model", _NO_WAY),
    (("flax_model.msgpack", "flax_model-*.msgpack"), "a Flax model", _NO_WAY),
    (("*.nemo",), "a NeMo archive", f"export it with NeMo to transformers' format; {_NO_WAY}"),
    (("*.ckpt",), "a checkpoint of Lightning", "save the model in it with save_pretrained"),
    (
        ("optimizer.pt", "optimizer.bin", "scheduler.pt", "trainer_state.json", "rng_state*.pth"),
        "the state of a trainer without the model's weights",
        "name the folder that the model was saved to",
    ),
    (
        ("*.incomplete", "*.aria2", "*.part", "*.crdownload"),
        "a download that broke off",
        "get its files again",
    ),
    (
        ("encoder.jit", "decoder.jit"),
        "a visual tokenizer, not the decoder",
        "name it with --visual-tokenizer, and the decoder's folder with --ckpt",
    ),
    (
        ("adapter_config.json",),
        "a folder with an adapter below it, without the weights that it is for",
        "merge it with `sar-eval ckpt merge ADAPTER --out MERGED`, and name MERGED",
    ),
    (
        ("*.pth", "*.pt", "*.npz"),
        "a folder without weights under the names of transformers",
        "if this file holds the model's tensors (its state_dict), name it pytorch_model.bin",
    ),
)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def refuse_adapter(folder: Path) -> None:
    """Raise for a folder with an adapter that is not merged, with or without the base's weights.

    Raises:
        BadInput: there is one; the message has the command that merges it.
    """
    from sar_eval.errors import BadInput

    if found := [name for name in _ADAPTER if (folder / name).exists()]:
        raise BadInput(
            f"{folder} has an adapter ({found[0]}), which would not be applied: merge it first, with "
            f"`sar-eval ckpt merge {shlex.quote(str(folder))} --out MERGED`, and name MERGED"
        )


def describe(folder: Path) -> str:
    """What a folder without weights is and what to do, "" if nothing is known of it."""
    if links := sorted(p.name for p in folder.iterdir() if p.is_symlink() and not p.exists()):
        return (
            f"{folder} has links that lead nowhere ({', '.join(links[:3])}{', ...' if links[3:] else ''}): "
            "copy the files that they led to, with `cp -L`"
        )
    names = _matcher(folder)
    for patterns, kind, way in _KINDS:
        if found := next((pattern for pattern in patterns if names(pattern)), ""):
            return f"{folder} is {kind} ({names(found)}): {way}"
    has_config = (folder / "config.json").is_file()
    wanted = ("*/model*.safetensors", "*/pytorch_model*.bin") if has_config else ("*/config.json",)
    if below := sorted({path.parent.name for pattern in wanted for path in folder.glob(pattern)}):
        return f"{folder} is no checkpoint, but has some below it: name one of {', '.join(below[:8])}"
    return ""


def _matcher(folder: Path) -> Callable[[str], str]:
    """A function that gives the first path matching a pattern, in the folder or one below it."""

    def first(pattern: str) -> str:
        paths = (path for where in (pattern, f"*/{pattern}") for path in folder.glob(where))
        return next((str(path.relative_to(folder)) for path in paths), "")

    return first
