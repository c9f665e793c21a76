"""Whatever stands in a checkpoint's files, the answer is a checkpoint or one message."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.just(10**25))
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
BYTES = st.one_of(st.binary(max_size=64), ODD.map(lambda value: json.dumps(value).encode()))


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "c"
    shutil.copytree(tiny_checkpoint.parent, root)
    return root / "decoder"


@pytest.fixture
def restored(folder: Path, tiny_checkpoint: Path) -> Iterator[Path]:
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tiny_checkpoint, folder)


def _look(folder: Path) -> None:
    try:
        found = find_checkpoint(str(folder))
        _ = found.notes, found.native_resolution, found.digest
    except BadInput as error:
        assert str(error)  # noqa: PT017 - either outcome is right, any other exception is not


def _changed(path: Path, original: Path, key: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(original.read_text()) | {key: value}))


@FUZZ
@given(data=st.data())
def test_values_of_the_settings(restored: Path, tiny_checkpoint: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["config.json", "sar_eval.json"]))
    keys = [*json.loads((tiny_checkpoint / name).read_text()), "head_dim", "rope_theta", "architectures"]
    _changed(restored / name, tiny_checkpoint / name, data.draw(st.sampled_from(keys)), data.draw(ODD))
    _look(restored)


@FUZZ
@given(name=st.sampled_from(["config.json", "sar_eval.json", "model.safetensors"]), contents=BYTES)
def test_any_bytes(restored: Path, name: str, contents: bytes) -> None:
    before = (restored / name).read_bytes()
    (restored / name).write_bytes(contents)
    _look(restored)
    (restored / name).write_bytes(before)


@FUZZ
@given(table=st.one_of(ODD, st.dictionaries(st.text(max_size=9), ODD, max_size=3)))
def test_any_index(restored: Path, table: Any) -> None:
    (restored / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    _look(restored)


@FUZZ
@given(name=st.sampled_from(["dtype", "shape", "data_offsets"]), value=ODD, position=st.integers(0, 40))
def test_any_header(restored: Path, tiny_checkpoint: Path, name: str, value: Any, position: int) -> None:
    raw = (tiny_checkpoint / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    tensor = sorted(key for key in header if key != "__metadata__")[position]
    header[tensor][name] = value
    text = json.dumps(header).encode()
    (restored / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    _look(restored)
