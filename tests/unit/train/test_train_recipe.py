"""Recipes of decoders: those that are shipped, what flags make of them, what is said of faults."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from sar_eval.documents import parse_toml, read_toml
from sar_eval.errors import BadInput, UnknownName
from sar_eval.recipe import decoder_recipes
from sar_eval.resume_rules import differences
from sar_eval.train.recipe_file import settings_digest, toml_text
from sar_eval.train.train_recipe import (
    TrainRecipe,
    load_train_recipe,
    make_train_recipe,
    public,
)
from sar_eval.train.training_options import ROUNDING, TrainingOptions

SMALL: dict[str, Any] = {
    "data": {"places": ["tokens"], "visual_tokenizer": "tokenizer"},
    "start": {"shape": "demo"},
    "training": {"steps": 4},
}
GIVEN = {"data": SMALL["data"], "start": {"ckpt": "demo:pretrain"}}


def made(**tables: dict[str, Any]) -> TrainRecipe:
    """The small recipe with other tables."""
    return make_train_recipe(SMALL, tables)


@pytest.mark.parametrize("name", sorted(decoder_recipes()))
def test_a_shipped_recipe_is_one(name: str) -> None:
    recipe = load_train_recipe(name, {"data": GIVEN["data"]} | ({} if "sft" not in name else GIVEN))
    assert recipe.name == name
    assert recipe.description
    assert recipe.kind == ("sft" if "sft" in name else "pretrain")


def test_a_shipped_recipe_asks_for_data() -> None:
    with pytest.raises(BadInput, match=r"demo-pretrain\.toml: no data is named: data\.places, or --data"):
        load_train_recipe("demo-pretrain")
    with pytest.raises(BadInput, match="nothing to start from"):
        load_train_recipe("simplear-1024-sft", {"data": GIVEN["data"]})


def test_the_demo_s_recipes_are_what_made_the_shipped_checkpoints() -> None:
    """docs/demo-checkpoints.md: steps, stops and rates of the three."""
    found = {}
    for name in ("demo-pretrain", "demo-sft", "demo-sft-short"):
        training = load_train_recipe(name, {"data": GIVEN["data"]}).training
        found[name] = training.steps, training.stop_at, training.learning_rate
        assert training == TrainingOptions(
            steps=training.steps, stop_at=training.stop_at, learning_rate=training.learning_rate
        )
    assert found == {
        "demo-pretrain": (3000, 1500, 2e-3),
        "demo-sft": (2000, 0, 1.5e-3),
        "demo-sft-short": (100, 0, 5e-4),
    }


@pytest.mark.parametrize("name", ["simplear-512-pretrain", "simplear-1024-sft"])
def test_what_is_kept_of_the_reference(name: str) -> None:
    """The command of docs/TRAIN.md in wdrink/SimpleAR: 4 x 8 cards, 8 pictures each, 2 accumulated."""
    training = load_train_recipe(name, GIVEN).training
    assert training.batch_size == 4 * 8 * 8 * 2
    assert training.accumulation(ranks=32) == 2
    assert (training.learning_rate, training.schedule, training.warmup) == (1e-4, "constant", 0)
    assert (training.weight_decay, training.beta2, training.caption_dropout) == (0.01, 0.999, 0.1)
    assert (training.precision, training.compile) == ("bfloat16", True)


@pytest.mark.parametrize(
    ("start", "rate"),
    [
        ({}, 2e-3),
        ({"shape": "0.5b"}, 1e-4),
        ({"init": "Qwen/Qwen2.5-0.5B"}, 1e-4),
        ({"ckpt": "demo:pretrain"}, 5e-4),
    ],
)
def test_the_learning_rate_is_the_start_s_unless_one_is_asked_for(
    tmp_path: Path, start: dict[str, str], rate: float
) -> None:
    assert made(start=start).training.learning_rate == rate
    assert made(start=start, training={"learning_rate": 0.5}).training.learning_rate == 0.5
    (tmp_path / "mine.toml").write_text(toml_text({**SMALL, "start": start or SMALL["start"]}))
    assert load_train_recipe(str(tmp_path / "mine.toml")).training.learning_rate == rate


def test_paths_are_those_of_the_recipe_and_of_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "recipes", tmp_path / "here"
    (beside / "tokenizer").mkdir(parents=True)
    (here / "mine").mkdir(parents=True)
    evaluation = {"benchmark": "red.toml", "judges": ["red.py:JUDGE", "shapes"]}
    (beside / "mine.toml").write_text(toml_text({**SMALL, "evaluation": evaluation}))
    for path in (beside / "red.toml", beside / "red.py", here / "blue.toml"):
        path.touch()
    (here / "shapes").mkdir()  # the name of a benchmark, and of a folder by chance
    monkeypatch.chdir(here)
    recipe = load_train_recipe(str(beside / "mine.toml"))
    assert recipe.name == "mine"
    assert recipe.data.places == (str(beside / "tokens"),)
    assert recipe.data.visual_tokenizer == str(beside / "tokenizer")
    assert recipe.start.shape == "demo"
    assert recipe.evaluation.benchmark == str(beside / "red.toml")
    assert recipe.evaluation.judges == (f"{beside / 'red.py'}:JUDGE", "shapes")
    for name, path in (("blue.toml", str(here / "blue.toml")), ("shapes", "shapes")):
        asked = load_train_recipe(str(beside / "mine.toml"), {"evaluation": {"benchmark": name}})
        assert asked.evaluation.benchmark == path
    changes = {"data": {"places": ["a:0.7", "s3://b/c:0.3"]}, "start": {"init": "mine"}}
    recipe = load_train_recipe(str(beside / "mine.toml"), changes)
    assert recipe.data.places == (f"{here / 'a'}:0.7", "s3://b/c:0.3")
    assert [(str(place.place), place.weight) for place in recipe.places] == [
        (str(here / "a"), 0.7),
        ("s3://b/c", 0.3),
    ]
    assert recipe.start.init == str(here / "mine")
    assert recipe.start.shape == ""
    assert made(start={"init": "Qwen/Qwen2.5-0.5B"}).start.init == "Qwen/Qwen2.5-0.5B"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"stepz": 3}}, r"unknown key training\.stepz; known are steps, "),
        ({"training": {"steps": 0}}, r"training\.steps: .*>= 1 \(it is 0\)"),
        ({"training": {"steps": "ten"}}, r"training\.steps.*'ten'"),
        ({"training": {"learning_rate": 0.0}}, r"training\.learning_rate.*> 0"),
        ({"training": {"learning_rate": float("nan")}}, r"training\.learning_rate"),
        ({"training": {"schedule": "linear"}}, r"training\.schedule.*'linear'"),
        ({"training": {"precision": "float16"}}, r"training\.precision"),
        ({"training": {"loss": "text"}}, r"training\.loss"),
        ({"training": {"caption_dropout": 1.5}}, r"training\.caption_dropout"),
        ({"training": {"ema": 1.0}}, r"training\.ema"),
        ({"training": {"pack": 1}}, r"training\.pack"),
        ({"training": {"stop_at": 5}}, "--stop-at is 5, after the end"),
        ({"training": {"micro": 3}}, "no multiple of --micro 3"),
        ({"training": {"lora": 4}}, r"training\.lora adapts trained weights"),
        ({"training": 3}, "training"),
        ({"data": {"places": []}}, "no data is named"),
        ({"data": {"places": "tokens"}}, r"data\.places"),
        ({"data": {"place": ["x"]}}, "place"),
        ({"data": {"visual_tokenizer": ""}}, "no visual tokenizer is named"),
        ({"start": {"init": "a", "shape": "demo"}}, "start has init and shape: which"),
        ({"start": {"shape": ""}}, "nothing to start from"),
        ({"start": {"ckpt": "demo:sft", "tie": False}}, r"start\.tie is for a new decoder"),
        ({"start": {"ckpt": "demo:sft", "text_tokenizer": "x"}}, r"start\.text_tokenizer is for a shape"),
        ({"evaluation": {"benchmark": "shapes", "every": 0}}, r"evaluation\.every"),
        ({"evaluation": {"benchmarks": "shapes"}}, "benchmarks"),
        ({"card": {"license": "mit"}}, "license"),
        ({"optimizer": {}}, "optimizer"),
    ],
)
def test_what_cannot_work_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        make_train_recipe(SMALL, changes, "mine.toml")
    assert str(caught.value).startswith(("mine.toml", "--"))


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UnknownName, match="demo-sft"):
        load_train_recipe("demo-sf")
    with pytest.raises(BadInput, match=r"the number of steps is missing: training\.steps, or --steps"):
        make_train_recipe({**SMALL, "training": {}}, {})


def test_every_option_of_training_is_a_key() -> None:
    options = TrainingOptions(steps=7, learning_rate=0.5, pack=True, schedule="constant", ema=0.5)
    recipe = made(training=asdict(options))
    assert recipe.training == options
    assert [*recipe.settings()["training"]] == [field.name for field in fields(TrainingOptions)]


def test_what_is_written_is_read_as_the_same_recipe(tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "start": {"shape": "demo", "tie": False},
        "training": {"learning_rate": 1e-5, "seed": 2**32 - 1},
        "evaluation": {"benchmark": "shapes"},
        "card": {"title": 'a "title"\\ of\nlines, \x7f and 形', "licence": "mit"},
    }
    recipe = made(**changes)
    (tmp_path / "recipe.toml").write_text(toml_text(recipe.settings()))
    again = load_train_recipe(str(tmp_path / "recipe.toml"), {"name": recipe.name})
    assert again == recipe
    assert again.digest == recipe.digest
    assert read_toml(tmp_path / "recipe.toml") == recipe.settings()


def test_toml_has_every_kind_of_value() -> None:
    tables: dict[str, Any] = {
        "top": 1,
        "a": {"text": "x", "none": None, "yes": True, "real": 1e-07, "large": 1e22, "many": [1.5, "b", []]},
        "b": {},
        "c": {"deep": {"odd key": "é"}},
    }
    written = parse_toml(toml_text(tables), "a test")
    assert written == {**tables, "a": {k: v for k, v in tables["a"].items() if v is not None}}


@pytest.mark.parametrize(
    ("name", "value", "counts"),
    [
        ("training.seed", 1, True),
        ("training.stop_at", 2, True),
        ("training.loss", "full", True),
        ("training.micro", 2, False),
        ("training.workers", 3, False),
        ("training.precision", "float32", False),
        ("training.save_every", 9, False),
        ("evaluation.every", 9, False),
        ("card.title", "x", False),
        ("data.places", ["tokens:0.5"], True),
        ("data.places", ["elsewhere/tokens"], False),
    ],
)
def test_the_digest_is_of_what_decides_the_weights(name: str, value: Any, counts: bool) -> None:
    table, _, key = name.partition(".")
    assert (made(**{table: {key: value}}).digest != made().digest) == counts


def test_others_read_no_path_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    changes = {"data": {"places": [f"{tmp_path}/tokens:0.5"], "visual_tokenizer": f"{tmp_path}/tokenizer"}}
    changes |= {"evaluation": {"benchmark": f"{tmp_path}/mine.toml"}, "card": {"title": "/imagine"}}
    settings = make_train_recipe(SMALL, changes).settings()
    assert str(tmp_path) in toml_text(settings)
    assert str(tmp_path) not in toml_text(public(settings))
    assert public(settings)["data"]["places"] == ["tokens:0.5"]
    assert public(settings)["evaluation"]["benchmark"] == "mine.toml"
    assert public(settings)["card"]["title"] == "/imagine"


def test_more_steps_are_the_same_training_where_the_rate_is_constant() -> None:
    for schedule in ("constant", "cosine"):
        recipe = made(training={"steps": 9, "schedule": schedule})
        stored = made(training={"steps": 4, "schedule": schedule}).settings()["training"]
        allowed = recipe.training.may_change(stored)
        differing = [name for name, _, _ in differences(stored, recipe.settings()["training"])]
        assert differing == ["steps"]
        assert ("steps" in allowed) == (schedule == "constant")
        assert {*ROUNDING, "stop_at"} <= {*allowed}
    assert "steps" not in made(training={"schedule": "constant"}).training.may_change(
        {"schedule": "cosine"}
    )


def test_a_digest_is_of_values_not_of_their_order() -> None:
    assert settings_digest({"a": {"b": 1, "c": 2}}) == settings_digest({"a": {"c": 2, "b": 1}})
    assert settings_digest({"a": {"b": 1, "c": 2}}, ["a.c"]) == settings_digest({"a": {"b": 1}})
