"""The YAML header of a card: what the Hugging Face hub and `datasets` read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import yaml  # type: ignore[import-untyped]

from sar_eval.storage.set_objects import LAYOUTS, set_features
from sar_eval.storage.set_reader import SetReader
from sar_eval.storage.webdataset_tar import token_type
from sar_eval.synthesis.summary import SetSummary
from sar_eval.types import Json

SIZES = {"1K": 1e3, "10K": 1e4, "100K": 1e5, "1M": 1e6, "10M": 1e7, "100M": 1e8, "1B": 1e9, "10B": 1e10}


def card_header(reader: SetReader, summary: SetSummary, title: str, licence: str) -> str:
    """The header, with its two lines of dashes."""
    layout = reader.layout
    configs = [_config("default", _files(reader, "data", LAYOUTS[layout]), default=True)]
    if not reader.repacked:
        configs.append(_config("manifest", _files(reader, "manifest", ".parquet")))
    facts: dict[str, Json] = {
        **({"license": licence} if licence else {}),
        "pretty_name": title,
        "task_categories": ["text-to-image"],
        "tags": ["synthetic", "sar-eval", *(["webdataset"] if layout == "webdataset" else [])],
        "size_categories": [size_category(summary.figures.kept)],
        "configs": configs,
        "dataset_info": [{"config_name": "default", "features": _features(reader, summary, layout)}],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=100)}---\n"


def _config(name: str, path: str | list[str], *, default: bool = False) -> dict[str, Json]:
    found: dict[str, Json] = {"config_name": name, "data_files": [{"split": "train", "path": path}]}
    return {**found, "default": True} if default else found


def _files(reader: SetReader, kind: str, suffix: str) -> str | list[str]:
    """A pattern; or, where it takes objects that do not count, as of earlier attempts, those that do."""
    listed = (info.name for info in reader.store.list(f"{kind}/") if info.name.endswith(suffix))
    if all(found == named for found, named in zip_longest(listed, _named(reader, kind))):
        return f"{kind}/*{suffix}"
    return list(_named(reader, kind))


def _named(reader: SetReader, kind: str) -> Iterator[str]:
    if kind == "data":
        return (part.name for part in reader.parts())
    return (record.manifest for record in reader.image_set.records())


def size_category(rows: int) -> str:
    """The hub's word for a number of rows."""
    names = list(SIZES)
    place = sum(rows >= bound for bound in SIZES.values())
    if place == 0:
        return f"n<{names[0]}"
    return f"n>{names[-1]}" if place == len(names) else f"{names[place - 1]}<n<{names[place]}"


def _features(reader: SetReader, summary: SetSummary, layout: str) -> list[Json]:
    spec, metadata = summary.spec, reader.metadata()
    tokens = token_type(metadata) if spec.keep != "pixels" else None
    measures = [measure.name for measure in spec.selection.measures]
    if layout == "parquet":
        columns = set_features(measures, image=spec.keep != "tokens", tokens=tokens)
        return [_feature(name, facts) for name, facts in columns.items()]
    return _tar_features(spec.image_format if spec.keep != "tokens" else "", tokens, measures, metadata)


def _feature(name: str, facts: Mapping[str, Any]) -> dict[str, Json]:
    """A column as a header names it."""
    if facts["_type"] == "Image":
        return {"name": name, "dtype": "image"}
    if facts["_type"] == "Sequence":
        return {"name": name, "sequence": facts["feature"]["dtype"]}
    return {"name": name, "dtype": facts["dtype"]}


def _tar_features(
    image: str, tokens: str | None, measures: list[str], metadata: Mapping[str, str]
) -> list[Json]:
    """Columns that `datasets` makes of the files of a picture in a tar."""
    types = {"row": "int64", "index": "int64", "id": "string", "seed": "int64", "text": "string"}
    struct: list[Json] = [{"name": name, "dtype": dtype} for name, dtype in types.items()]
    for name, members in (("scores", dict.fromkeys(measures, "float64")), ("made_with", metadata)):
        if members:
            dtype = "float64" if name == "scores" else "string"
            struct.append({"name": name, "struct": [{"name": m, "dtype": dtype} for m in members]})
    found: list[Json] = [{"name": "json", "struct": struct}]
    found += [{"name": image, "dtype": "image"}] if image else []
    found += [{"name": "tokens.npy", "sequence": tokens}] if tokens else []
    found += [{"name": name, "dtype": "string"} for name in ("txt", "__key__", "__url__")]
    return found
