"""Everything that reads what users and servers bring, each with a good file: one entry, one loader."""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from sar_eval.answerers.server import parse_response
from sar_eval.answers import Asked
from sar_eval.cli.options import named_options
from sar_eval.clients.json_client import JsonClient, RequestError
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.demo import build_text_tokenizer
from sar_eval.families.simplear import find_checkpoint
from sar_eval.families.tensor_names import decoder_shapes
from sar_eval.images.folder import HowToRead, find_images
from sar_eval.networks.mplug.check import read_table
from sar_eval.networks.mplug.shape import read_shape
from sar_eval.recipe import load_recipe
from sar_eval.spec import RunSpec
from sar_eval.stages.anchors import read_anchors
from sar_eval.stages.describe_checkpoint import describe
from sar_eval.storage.prompt_table import PromptTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.shards import IMAGE_SCHEMA, TOKEN_SCHEMA, read_images, read_shards
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.dpg.suite import import_suite
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import Template
from sar_eval.train.curve import trim_curve
from sar_eval.types import DrawProtocol, Prompt


@dataclass(frozen=True, slots=True)
class Loader:
    """One way in.

    Attributes:
        name: of the file that is mutated.
        files: every file of a folder that loads without an error, by name.
        load: reads the folder.
        shape: `json` or `jsonl` for files whose values are replaced too, else "".
    """

    name: str
    files: Callable[[], Mapping[str, bytes]]
    load: Callable[[Path], object]
    shape: str = ""


def one(name: str, good: bytes, load: Callable[[Path], object], shape: str = "") -> Loader:
    """A loader of a single file."""
    return Loader(name, lambda: {name: good}, lambda folder: load(folder / name), shape)


CHECKS = {
    "include": [{"class": "cat", "count": 2, "color": "red"}],
    "exclude": [{"class": "cat", "count": 3}],
}
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "two red cats", "tag": "counting", "checks": CHECKS, "split": "seen"},
    {"id": "b", "prompt": "a dog"},
]
JSONL = "\n".join(map(json.dumps, ROWS)).encode()
CSV = b'id,text,tag\na,"two red, cats",counting\nb,a dog,\n'
RECIPE = b"""name = "mine"
suite = "shapes.jsonl"
judge = "shapes"
fold = "shapes"
images_per_prompt = 4
seed = 0
[protocol]
guidance = 6.0
top_p = 0.9
[judge_options]
threshold = 0.5
[engine_options]
nested = {a = [1, 2]}
"""
SPEC = RunSpec("shapes", "shapes", "x.jsonl", "0" * 16, "demo:sft", "1" * 16, DrawProtocol("p", 64))
MANIFEST = {
    "spec": SPEC.to_json(),
    "digest": SPEC.digest,
    "earlier_digests": ["0" * 16],
    "versions": {"torch": "2.11"},
    "git_commit": None,
    "prompts": {"digest": "0" * 16, "number": 2},
}
DPG = (
    b"item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    b"question_natural_language\n"
    b'a1,"a red ball",,1,0,entity,whole,entity - whole (ball),Is there a ball?\n'
    b'a1,"a red ball",,2,1,attribute,color,"attribute - color (ball, red)",Is the ball red?\n'
)
MPLUG = b"image_res: 32\nclip_vision_patch_size: 16\nclip_vision_width: 128\nclip_vision_layers: 2\n"
BERT = {
    "hidden_size": 64,
    "num_attention_heads": 1,
    "intermediate_size": 64,
    "vocab_size": 10,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
    "text_encoder_layers": 1,
    "num_hidden_layers": 2,
    "fusion_layers": 1,
    "text_decode_layers": 1,
    "layer_norm_eps": 1e-12,
}
TOP = [{"token": "Yes", "logprob": -0.1}, {"token": "no", "logprob": -2}]
REPLY = {
    "choices": [
        {
            "message": {"role": "assistant", "content": "**Yes**, there is."},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "Yes", "top_logprobs": TOP}]},
        }
    ]
}
CLIENT = JsonClient("http://127.0.0.1:9/v1")


def parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, write_page_checksum=True)
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def safetensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@cache
def summary() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        RunFolder(Path(folder)).write_summary({"schema": 3, "metrics": [{"name": "overall", "value": 0.5}]})
        return {"summary.json": (Path(folder) / "summary.json").read_bytes()}


@cache
def checkpoint() -> dict[str, bytes]:
    """A folder that `find_checkpoint` takes; its weights are zeros."""
    tokenizer = build_text_tokenizer(["a", "ring"])
    config = {
        "model_type": "qwen2",
        "architectures": ["SimpARForCausalLM"],
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 8,
        "vocab_size": len(tokenizer) + 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 99,
    }
    shapes = dict(decoder_shapes(DecoderConfig.from_dict(config)))
    index = {"metadata": {"total_size": 8}, "weight_map": dict.fromkeys(shapes, "model.safetensors")}
    return {
        "config.json": json.dumps(config).encode(),
        "sar_eval.json": b'{"visual_tokenizer": "visual", "resolution": 64}',
        "tokenizer.json": tokenizer.backend_tokenizer.to_str().encode(),
        "model.safetensors": safetensors(shapes),
        "model.safetensors.index.json": json.dumps(index).encode(),
        "visual/config.json": b'{"codebook_size": 8, "downsample": 8}',
        "visual/encoder.jit": b"PK",
        "visual/decoder.jit": b"PK",
    }


def load_checkpoint(folder: Path) -> None:
    found = find_checkpoint(str(folder))
    _ = (found.digest, found.decoder_config, found.native_resolution, found.prompt_ids("a ring"))


def load_manifest(folder: Path) -> None:
    manifest = RunFolder(folder).read_manifest()
    _ = RunSpec.from_json(manifest.spec).digest


def load_weights(folder: Path) -> None:
    _ = (
        find_checkpoint(str(folder)).read_weights("cpu", torch.float32),
        describe(str(folder), "", "float32"),
    )


def load_images(folder: Path) -> None:
    prompts = [Prompt("a", "two red cats", "counting", CHECKS), Prompt("b", "a dog")]
    found = find_images(folder, prompts, HowToRead(1))
    _ = (found.digest(), str(found), found.missing(prompts))


def load_reply(path: Path) -> None:
    """A server's answers; an unusable one is the error of its question, and can be stored."""
    try:
        response = CLIENT._parse(path.read_bytes())
        answers = [parse_response(response, CLIENT, Asked("?", expect)) for expect in ((), ("Yes", "two"))]
    except RequestError as error:
        str(error).encode()
        raise BadInput(str(error)) from error
    texts = [[a.text, a.soft, a.error, a.listed and a.listed.mass] for a in answers]
    json.dumps(texts, allow_nan=False, ensure_ascii=False).encode()


def load_words(path: Path) -> None:
    """`NAME=VALUE` words as the command line hands them over."""
    named_options("--judge-option", path.read_bytes().decode("utf-8", "surrogateescape").split("\n"))


def images(manifest: str, lines: bytes) -> Callable[[], Mapping[str, bytes]]:
    return lambda: {manifest: lines, "x.png": png(), "y.png": png()}


def of_checkpoint(name: str, shape: str = "") -> Loader:
    return Loader(name, checkpoint, load_checkpoint, shape)


TOKEN_ROWS = [{"tokens": [1, 2, 3, 4], "caption": "a ring"}] * 3
IMAGE_ROWS = [{"image": {"bytes": png(), "path": "x.png"}, "caption": "a ring"}] * 2
PROMPT_ROWS = [{"id": "a", "text": "a cat", "tag": "", "split": "", "checks": json.dumps(CHECKS)}] * 2
GENEVAL = {
    "tag": "counting",
    "include": [{"class": "cat", "count": 2, "color": "red"}],
    "prompt": "two red cats",
}

ASKED = Template("ask", "judge.py", hashlib.sha256(b"Is it {what}?").hexdigest())
LOADERS = (
    one("prompts.jsonl", JSONL, load_suite, "jsonl"),
    one("prompts.csv", CSV, load_suite),
    one("prompts.txt", b"a cat\n\na dog\n", load_suite),
    one("prompts.parquet", parquet([{"id": "a", "text": "a cat", "tag": "x"}] * 1), load_suite),
    one("recipe.toml", RECIPE, lambda path: load_recipe(str(path))),
    one("words", b"a=5\nb=[1, {c = 'x'}]\nd=http://h/v1", load_words),
    one("run.json", json.dumps(MANIFEST).encode(), lambda path: load_manifest(path.parent), "json"),
    Loader("summary.json", summary, lambda folder: RunFolder(folder).read_summary(), "json"),
    one("stored.parquet", parquet(PROMPT_ROWS), lambda path: list(PromptTable(path))),
    of_checkpoint("config.json", "json"),
    of_checkpoint("sar_eval.json", "json"),
    of_checkpoint("tokenizer.json", "json"),
    Loader("model.safetensors", checkpoint, load_weights),
    of_checkpoint("model.safetensors.index.json", "json"),
    of_checkpoint("visual/config.json", "json"),
    Loader(
        "manifest.csv", images("manifest.csv", b"file,prompt_id,index\nx.png,a,0\ny.png,b,0\n"), load_images
    ),
    Loader(
        "manifest.jsonl",
        images(
            "manifest.jsonl", b'{"file": "x.png", "prompt_id": "a"}\n{"file": "y.png", "prompt": "a dog"}\n'
        ),
        load_images,
        "jsonl",
    ),
    Loader(
        "00000/metadata.jsonl",
        lambda: {"00000/metadata.jsonl": json.dumps(GENEVAL).encode(), "00000/samples/0000.png": png()},
        load_images,
        "json",
    ),
    one("dpg_bench.csv", DPG, import_suite),
    one("judge.py", b'ASK = "Is it " + f"{what}?"\n', lambda path: cut(ASKED, path)),
    one("scores.jsonl", b'{"scorer": "hps", "image": "x.png", "score": 0.3}\n', read_anchors, "jsonl"),
    one("reply.json", json.dumps(REPLY).encode(), load_reply, "json"),
    Loader(
        "config.yaml",
        lambda: {"config.yaml": MPLUG, "config_bert.json": json.dumps(BERT).encode()},
        read_shape,
    ),
    Loader(
        "config_bert.json",
        lambda: {"config.yaml": MPLUG, "config_bert.json": json.dumps(BERT).encode()},
        read_shape,
        "json",
    ),
    one("answers.jsonl", b'{"image": "x.png", "question": "a?", "answer": "yes"}\n', read_table, "jsonl"),
    one(
        "shard-0.parquet",
        parquet(TOKEN_ROWS, TOKEN_SCHEMA),
        lambda path: list(read_shards([path.parent], TOKEN_SCHEMA)),
    ),
    one(
        "shard-1.parquet",
        parquet(IMAGE_ROWS, IMAGE_SCHEMA),
        lambda path: list(read_images([path.parent])),
    ),
    one("loss.jsonl", b'{"step": 1, "loss": 2.0}\n', lambda path: trim_curve(path, 5), "jsonl"),
)
