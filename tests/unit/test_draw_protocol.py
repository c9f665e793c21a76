"""The size of a protocol: how it is stored and hashed, and in which ways nobody may write it."""

import json
from dataclasses import replace

import pytest

from sar_eval.errors import BadInput
from sar_eval.spec import RunSpec
from sar_eval.types import DrawProtocol

TALL = DrawProtocol("test", 96, width=64, height=96)


@pytest.fixture
def fixed() -> RunSpec:
    """A spec without paths, so that its digest is the same on every machine."""
    return RunSpec(
        benchmark="shapes",
        fold="shapes",
        suite="suite.jsonl",
        suite_digest="0" * 16,
        checkpoint="demo:sft",
        checkpoint_digest="0" * 16,
        protocol=DrawProtocol("shapes", 64, guidance=3.0),
        images_per_prompt=2,
    )


def test_a_square_is_stored_and_hashed_as_before_there_were_others(fixed: RunSpec) -> None:
    """Digest and text are those that the version without width and height gave."""
    assert fixed.digest == "b476c907bdb22d6a"
    assert json.dumps(fixed.to_json()["protocol"]) == (
        '{"name": "shapes", "resolution": 64, "prefix": "", "negative_prompt": "", "guidance": 3.0, '
        '"temperature": 1.0, "top_k": 0, "top_p": 1.0, "prefixes": "", "full_vocab": false, '
        '"truncate": false}'
    )


def test_sizes_have_digests_of_their_own(fixed: RunSpec) -> None:
    wide = DrawProtocol("test", 96, width=96, height=64)
    square = DrawProtocol("test", 96)
    assert len({replace(fixed, protocol=p).digest for p in (TALL, wide, square)}) == 3
    assert [p.size for p in (TALL, wide, square)] == [(96, 64), (64, 96), (96, 96)]
    assert [p.written_size for p in (TALL, wide, square)] == ["64x96", "96x64", "96"]


def test_a_size_comes_back_from_json(fixed: RunSpec) -> None:
    spec = replace(fixed, protocol=TALL)
    stored = spec.to_json()
    assert {"resolution": 96, "width": 64, "height": 96}.items() <= stored["protocol"].items()
    assert RunSpec.from_json(json.loads(json.dumps(stored))) == spec


def test_what_differs_names_the_size_once() -> None:
    assert TALL.conditions()["resolution"] == "64x96"
    assert DrawProtocol("other", 96).conditions()["resolution"] == 96
    assert not {"width", "height", "name"} & TALL.conditions().keys()


@pytest.mark.parametrize(
    "sizes",
    [
        {"resolution": 64, "width": 64},
        {"resolution": 64, "height": 64},
        {"resolution": 64, "width": 64, "height": 64},
        {"resolution": 64, "width": 64, "height": 96},
        {"resolution": 96, "width": -64, "height": 96},
        {"resolution": 128, "width": 64, "height": 96},
    ],
)
def test_no_size_is_written_in_two_ways(fixed: RunSpec, sizes: dict[str, int]) -> None:
    """Neither by our code, nor by who edits run.json."""
    with pytest.raises(ValueError, match="are no size"):
        DrawProtocol("test", **sizes)
    data = fixed.to_json()
    data["protocol"] |= sizes
    with pytest.raises(BadInput, match=r"run\.json, spec: protocol: width .* are no size"):
        RunSpec.from_json(data)
