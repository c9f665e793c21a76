"""The card of a set: what it says, what it keeps from an earlier one, and that no name can break it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.synthesis.card import CardWords, command_of, write_card
from sar_eval.synthesis.card_header import size_category
from tests.small_sets import commit_block, make_set, remove, spec_of


def header(card: str) -> dict[str, object]:
    _, text, _ = card.split("---\n")
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def test_a_card_says_what_is_there(tmp_path: Path) -> None:
    make_set(tmp_path)
    card = write_card(open_store(tmp_path), CardWords(licence="cc-by-4.0", prompts_licence="Apache-2.0"))
    assert (tmp_path / "README.md").read_text() == card
    facts = header(card)
    assert facts["license"] == "cc-by-4.0"
    assert [config["config_name"] for config in facts["configs"]] == ["default", "manifest"]
    assert facts["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    columns = [column["name"] for column in facts["dataset_info"][0]["features"]]
    assert columns == ["image", "tokens", "caption", "id", "row", "index", "seed", "text", "shapes", "hps"]
    for words in ("8 pictures", "| Pictures drawn | 19 |", "`hps > 0.2`", "Apache-2.0", "not stated"):
        assert words in card, words
    assert spec_of().digest in card
    assert "/home/me" not in card
    figures = json.loads((tmp_path / "funnel.json").read_text())["figures"]
    assert (figures["kept"], figures["draws"], figures["objects"], figures["removed"]) == (8, 19, 2, 0)


def test_places_of_this_machine_are_nobodys_business(tmp_path: Path) -> None:
    spec = spec_of(checkpoint="/home/me/secret/sft-7")
    measure = replace(spec.selection.measures[0], source="/home/me/mine.py:JUDGE")
    measure = replace(measure, options={"weights": "/home/me/w.pt", "k": "/x/y"}, ignored=("weights",))
    spec = replace(spec, selection=replace(spec.selection, measures=(measure, spec.selection.measures[1])))
    make_set(tmp_path, spec=spec.to_json())
    card = write_card(open_store(tmp_path))
    assert "/home/me" not in card
    assert "--ckpt sft-7" in card
    public = spec.without_paths()
    assert "/home/me" not in json.dumps(public.to_json())
    assert public.selection.measures[0].options == {"weights": "w.pt", "k": "/x/y"}
    assert public.digest == spec.digest


def test_words_of_an_earlier_card_stay(tmp_path: Path) -> None:
    make_set(tmp_path)
    write_card(open_store(tmp_path), CardWords("Rings", "cc-by-4.0"))
    card = write_card(open_store(tmp_path), CardWords(prompts_licence="MIT"))
    assert "# Rings" in card
    assert "cc-by-4.0" in card
    assert "| Their licence | MIT |" in card
    assert write_card(open_store(tmp_path)) == card


def test_a_card_counts_what_was_removed(tmp_path: Path) -> None:
    make_set(tmp_path)
    remove(tmp_path, [(0, 0), (9, 0)])
    remove(tmp_path, [(9, 0)], name="1" * 16)
    card = write_card(open_store(tmp_path))
    assert "6 pictures" in card
    assert "| Removed as duplicates since | 2 |" in card
    assert "dedup/*.parquet" in card


def test_names_cannot_break_a_card(tmp_path: Path) -> None:
    evil = "x`|\n---\nlicense: mit\n<script>alert(1)</script>[a](javascript:b) # h"
    spec = spec_of(checkpoint=evil, suite=f"/tmp/{evil}", engine_version=evil)
    make_set(tmp_path, spec=spec.to_json())
    card = write_card(open_store(tmp_path), CardWords(title=evil, licence=evil))
    assert header(card)["pretty_name"] == " ".join(evil.split())
    body = card.split("\n---\n")[1]
    assert not any(line.startswith(("license", "---", "<script")) for line in body.splitlines())
    rows = [line for line in body.splitlines() if line.startswith("| Checkpoint")]
    assert rows[0].replace("\\|", "").count("|") == 3


@pytest.mark.parametrize("keep", ["pixels", "tokens", "both"])
@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_every_kind_of_set_has_a_card(tmp_path: Path, layout: str, keep: str) -> None:
    make_set(tmp_path, layout=layout, keep=keep)
    features = header(write_card(open_store(tmp_path)))["dataset_info"][0]["features"]
    names = {column["name"]: column for column in features}
    image, tokens = ("image", "tokens") if layout == "parquet" else ("png", "tokens.npy")
    assert (names.get(image, {}).get("dtype") == "image") == (keep != "tokens")
    assert (names.get(tokens, {}).get("sequence") == "uint16") == (keep != "pixels")


def test_a_set_of_which_nothing_was_kept_has_a_card(tmp_path: Path) -> None:
    image_set = ImageSet(open_store(tmp_path))
    image_set.begin(spec_of(1).to_json())
    commit_block(image_set, 0, [])
    assert "0 pictures" in write_card(image_set.store)


def test_no_set_and_broken_words(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no set"):
        write_card(open_store(tmp_path))
    make_set(tmp_path)
    (tmp_path / "card.json").write_text('{"title": 5}')
    with pytest.raises(BadInput, match=r"card\.json: title"):
        write_card(open_store(tmp_path))


def test_the_command_can_be_pasted() -> None:
    import shlex

    words = shlex.split(command_of(spec_of()))
    assert words[:5] == ["sar-eval", "synth", "prompts.jsonl", "--ckpt", "demo:sft"]
    assert words[words.index("--filter") + 1] == "shapes == 1 and hps > 0.2"


@pytest.mark.parametrize(
    ("rows", "words"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**10, "n>10B"), (10**6, "1M<n<10M")],
)
def test_sizes_as_the_hub_calls_them(rows: int, words: str) -> None:
    assert size_category(rows) == words


def test_the_same_set_gives_the_same_card_anywhere(tmp_path: Path) -> None:
    make_set(tmp_path / "a")
    make_set(tmp_path / "b")
    os.utime(tmp_path / "b" / "spec.json", (0, 0))
    assert write_card(open_store(tmp_path / "a")) == write_card(open_store(tmp_path / "b"))
