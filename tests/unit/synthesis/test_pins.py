"""Names of the hub keep the commit that a set was begun with."""

from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.families.locate import COSMOS_REPO, with_same_commit
from sar_eval.spec import RunSpec
from sar_eval.synthesis.pins import as_pinned, pinned
from tests.stored_runs import make_spec
from tests.tiny_janus import write_janus
from tests.tiny_llamagen import NETWORK, write_llamagen

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("asked", "earlier", "found"),
    [
        ("org/a", f"org/a@{COMMIT}", f"org/a@{COMMIT}"),
        ("org/a@main", f"org/a@{COMMIT}", f"org/a@{COMMIT}"),
        ("org/a/step/9", f"org/a/step/9@{COMMIT}", f"org/a/step/9@{COMMIT}"),
        ("org/a@v2", f"org/a@{COMMIT}", "org/a@v2"),
        ("org/b", f"org/a@{COMMIT}", "org/b"),
        ("org/a", f"org/a/step/9@{COMMIT}", "org/a"),
        ("demo:sft", "demo:sft", "demo:sft"),
        ("/x@y/ckpt", "/x@y/ckpt", "/x@y/ckpt"),
        ("org/a", "/mirror/org/a", "org/a"),
    ],
)
def test_the_same_name_keeps_its_commit(asked: str, earlier: str, found: str) -> None:
    assert with_same_commit(asked, earlier) == found


def _begun(checkpoint: str, visual: str) -> RunSpec:
    options = {"visual_tokenizer": visual} if visual else {}
    return replace(make_spec([]), checkpoint=checkpoint, engine_options=options)


@pytest.mark.parametrize(
    ("asked", "stored", "found"),
    [
        ("org/visual", f"org/visual@{COMMIT}", f"org/visual@{COMMIT}"),
        ("", f"{COSMOS_REPO}@{COMMIT}", f"{COSMOS_REPO}@{COMMIT}"),
        ("", "", None),
        ("org/other", f"org/visual@{COMMIT}", "org/other"),
        ("/a/folder", f"org/visual@{COMMIT}", "/a/folder"),
    ],
)
def test_the_visual_tokenizer_does_too(asked: str, stored: str, found: str | None) -> None:
    options = {"visual_tokenizer": asked} if asked else {}
    drawing = {"seed": 3, "engine_options": options}
    checkpoint, changed = as_pinned("org/a", drawing, _begun(f"org/a@{COMMIT}", stored))
    assert checkpoint == f"org/a@{COMMIT}"
    assert changed["seed"] == 3
    assert changed["engine_options"].get("visual_tokenizer") == found
    assert drawing["engine_options"] == options


def test_a_checkpoint_with_its_own_picture_decoder_asks_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")  # so that asking for Cosmos would fail
    folders = write_janus(tmp_path / "janus"), write_llamagen(tmp_path / "llamagen")
    for checkpoint in (*folders, folders[1] / f"{NETWORK}.pt"):
        run = replace(make_spec([]), checkpoint=str(checkpoint), engine="native", engine_options={})
        assert pinned(run) == run


def test_a_tokenizer_in_a_folder_has_no_commit() -> None:
    run = replace(make_spec([]), checkpoint="demo:sft", engine="native", engine_options={})
    assert pinned(run) == run
