"""Small sets of pictures, committed as workers commit theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sar_eval.spec import RunSpec
from sar_eval.storage.image_set import ImageSet, object_name
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_objects import data_object, manifest_object
from sar_eval.storage.set_rows import BlockRecord, DataRow, ManifestRow, Value
from sar_eval.synthesis.measures import MeasureSpec
from sar_eval.synthesis.selection import Selection
from sar_eval.synthesis.spec import PromptFacts, SetSpec
from sar_eval.types import DrawProtocol

METADATA = {"sar_eval_spec": "0" * 16, "codebook_size": "64", "encoder": "e" * 16}
MEASURES = ("shapes", "hps")


def png(number: int, side: int = 8) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_row(row: int, index: int = 0, *, keep: str = "both", side: int = 8) -> DataRow:
    """A kept draw; each has its own picture and codes."""
    number = row * 16 + index
    codes = np.random.default_rng(number).integers(0, 64, 16).tolist()
    return DataRow(
        row,
        index,
        f"p{row}",
        f"a ring, the {row}. of its kind",
        number,
        f"A picture of a ring, the {row}. of its kind",
        png(number, side) if keep != "tokens" else None,
        tuple(codes) if keep != "pixels" else None,
        {"shapes": 1.0} | ({} if row % 3 else {"hps": row / 8 + 0.1}),
    )


def commit_block(
    image_set: ImageSet, block: int, rows: Sequence[DataRow], layout: str = "parquet", attempt: int = 0
) -> BlockRecord:
    """Commit a block with these draws kept, and a refused one beside each and at the end."""
    data, suffix = data_object(rows, layout, METADATA, MEASURES) if rows else (b"", "")
    lines = [line for n, row in enumerate(rows) for line in _lines(row, n)]
    manifest = manifest_object([*lines, _lines(data_row(10**6 + block), 0)[1]], MEASURES)
    record = BlockRecord(
        block=block,
        attempt=attempt,
        data=object_name("data", block, data, suffix) if rows else "",
        manifest=object_name("manifest", block, manifest, ".parquet"),
        prompts=len(rows) + 1,
        draws=len(lines) + 1,
        data_bytes=len(data),
        manifest_bytes=len(manifest),
        fates={"filtered: hps > 0.2": len(rows) + 1, "kept": len(rows)},
    )
    image_set.commit(record, data, manifest)
    return record


def _lines(row: DataRow, position: int) -> list[ManifestRow]:
    kept = {name: Value(score) for name, score in row.scores.items()}
    low = {"shapes": Value(0.0, False), "hps": Value(0.1)}
    key = (row.row, row.index, row.id, row.seed)
    return [
        ManifestRow(*key, "kept", values=kept, pixels=bytes(16), phash=row.row, position=position),
        ManifestRow(row.row, row.index + 8, row.id, row.seed, "filtered", "hps > 0.2", low, bytes(16)),
    ]


def make_set(
    place: Path | str,
    blocks: int = 3,
    prompts: int = 4,
    *,
    layout: str = "parquet",
    keep: str = "both",
    spec: Mapping[str, object] | None = None,
    side: int = 8,
) -> list[DataRow]:
    """Make a set and return its rows; of block 1 nothing is kept."""
    image_set, made = ImageSet(open_store(place)), list[DataRow]()
    known = spec_of(blocks, prompts, layout=layout, keep=keep).to_json() if spec is None else spec
    image_set.begin(known)
    for block in range(blocks):
        numbers = range(block * prompts, (block + 1) * prompts) if block != 1 else ()
        rows = [data_row(number, keep=keep, side=side) for number in numbers]
        commit_block(image_set, block, rows, layout)
        made += rows
    return made


def remove(place: Path | str, keys: Sequence[tuple[int, int]], name: str = "0" * 16) -> None:
    """What `synth dedup` leaves: an object with the keys of removed draws."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, (rows, indices) = BytesIO(), zip(*keys, strict=True)
    pq.write_table(pa.table({"row": pa.array(rows), "index": pa.array(indices, pa.int32())}), file)
    open_store(place).write(f"dedup/phash-{name}.parquet", file.getvalue())


def spec_of(
    blocks: int = 3, prompts: int = 4, *, layout: str = "parquet", keep: str = "both", **names: object
) -> SetSpec:
    """The spec that a set of `make_set` could have been drawn with; `names` are fields of its run."""
    run = RunSpec(
        "synth", "", "/home/me/prompts.jsonl", "1" * 16, "demo:sft", "2" * 16, DrawProtocol("demo", 64)
    )
    measures = tuple(MeasureSpec(name, name, "scorer", "1") for name in MEASURES)
    chosen = Selection("shapes == 1 and hps > 0.2", "hps", 0, "exact", measures)
    facts = PromptFacts(100, "3" * 16, blocks * prompts)
    return SetSpec(replace(run, **names), facts, chosen, layout, keep, block_prompts=prompts)
