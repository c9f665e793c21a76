"""Recipes and words of the command line that nobody means: refused in a line, and nothing is written."""

import os
import sys
import time
from pathlib import Path

import pytest
from command_line import Run, refused

from sar_eval.cli.options import named_options
from sar_eval.errors import BadInput
from sar_eval.options import check_kinds, check_name, check_storable
from sar_eval.recipe import load_recipe

RUN = ("run", "shapes", "--ckpt", "demo:sft")
LONG = "x" * 300
HALF = "a\udcff"  # how Python hands over a byte that is no UTF-8
GOOD = 'suite = "shapes.jsonl"\n'


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (("run", LONG, "--ckpt", "demo:sft"), ["a name of 300 bytes"]),
        (("run", f"{LONG}.toml", "--ckpt", "demo:sft"), ["a name of 305 bytes"]),
        (("run", f"{LONG}/a.toml", "--ckpt", "demo:sft"), ["a name of 300 bytes"]),
        (("run", "a/" * 3000 + "a.toml", "--ckpt", "demo:sft"), ["a name of"]),
        (("run", "shapes", "--ckpt", LONG), ["--ckpt: a name of 300 bytes"]),
        (("run", "shapes", "--ckpt", "é" * 200), ["--ckpt: a name of 400 bytes"]),
        (("run", "shapes", "--ckpt", HALF), ["--ckpt: contains a lone surrogate"]),
        (("run", "shapes", "--ckpt", ""), ["--ckpt is empty"]),
        (("run", "", "--ckpt", "demo:sft"), ["is empty"]),
        (("run", HALF, "--ckpt", "demo:sft"), ["contains a lone surrogate"]),
        ((*RUN, "--engine", LONG), ["--engine: a name of 300 bytes"]),
        ((*RUN, "--judge", f"{LONG}.py:J"), ["--judge: a name of 305 bytes"]),
        ((*RUN, "--judge", HALF), ["--judge: contains a lone surrogate"]),
        ((*RUN, "--suite", LONG), ["--suite: a name of 300 bytes"]),
        ((*RUN, "--suite", HALF), ["--suite: contains a lone surrogate"]),
        ((*RUN, "--out", LONG), ["--out: a name of 300 bytes"]),
        ((*RUN, "--visual-tokenizer", LONG), ["--visual-tokenizer: a name of 300 bytes"]),
        ((*RUN, "--visual-tokenizer", ""), ["--visual-tokenizer is empty"]),
        ((*RUN, "--negative-prompt", HALF), ["--negative-prompt: contains a lone surrogate"]),
        (("ckpt", "info", "demo:sft", "--visual-tokenizer", LONG), ["a name of 300 bytes"]),
        ((*RUN, "--engine-option", "speculate=1979-05-27"), ["speculate is a date", "in quotes"]),
        ((*RUN, "--engine-option", "speculate=[1979-05-27T07:32:00]"), ["speculate[0] is a datetime"]),
        ((*RUN, "--judge-option", "x={a = 07:32:00}"), ["x.a is a time"]),
        ((*RUN, "--engine-option", "x=" + "[" * 600), ["nested deeper than 64"]),
        ((*RUN, "--judge-option", "x=" + "{a=" * 600), ["nested deeper than 64"]),
        ((*RUN, "--engine-option", "x=" + "9" * 5000), ["a whole number of 5000 digits"]),
        ((*RUN, "--engine-option", "x=nan"), ["not finite"]),
        ((*RUN, "--engine-option", "x=-inf"), ["not finite"]),
        ((*RUN, "--engine-option", "x=1e999"), ["not finite"]),
        ((*RUN, "--engine-option", f"x={HALF}"), ["lone surrogate"]),
        ((*RUN, "--engine-option", "compile=7"), ["compile 7 of engine 'native' must be of kind bool"]),
        ((*RUN, "--engine-option", "window=true"), ["window True of engine 'native' must be of kind int"]),
        (
            (*RUN, "--engine-option", "window=wide"),
            ["window 'wide' of engine 'native' must be of kind int"],
        ),
        ((*RUN, "--engine-option", "image_format=1"), ["must be of kind str"]),
        ((*RUN, "--engine-option", "device=cpu"), ["say --devices"]),
        ((*RUN, "--judge-option", "device=cpu"), ["say --devices"]),
        ((*RUN, "--judge-option", "api_key_env:sk-SECRET"), ["is not of the form NAME=VALUE"]),
        ((*RUN, "--seed", "9" * 40), ["seed is 99", "it must lie between"]),
    ],
)
def test_words_that_cannot_work(
    in_this_process: Run, tmp_path: Path, words: tuple[str, ...], messages: list[str]
) -> None:
    done = in_this_process(words)
    refused(done, *messages)
    assert len(done.stderr) < 600
    assert "sk-SECRET" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written for a refused command"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = " + "[" * 2000 + "]" * 2000, "nested deeper than 64"),
        ("name = " + "{a=" * 2000, "nested deeper than 64"),
        ("[a" + ".a" * 3000 + "]", "nested deeper than 64"),
        ("seed = " + "9" * 5000, "a whole number of 5000 digits"),
        ("seed = 0x" + "f" * 5000, "a whole number of more than 40 digits"),
        ("seed = 1.5", "seed is 1.5, it must be of kind int"),
        ("seed = true", "seed is True, it must be of kind int"),
        ("seed = 1979-05-27", "it must be of kind int"),
        ("seed = [1]", "it must be of kind int"),
        ("name = 5", "name is 5, it must be of kind str"),
        ("judge = 1979-05-27", "it must be of kind str"),
        ('suite = "a\\u0000"', "contains a NUL character"),
        ('name = "a\\ud800"', "broken TOML"),
        ("suite = 5", "no key 'suite'"),
        ("suite = [1]", "no key 'suite'"),
        (f'suite = "{LONG}"', "suite: a name of 300 bytes"),
        (f'engine = "{LONG}"', "engine: a name of 300 bytes"),
        (f'fold = "{LONG}.py:B"', "fold: a name of 305 bytes"),
        (f'judge = "{LONG}"', "judge: a name of 300 bytes"),
        (f'[judge_options]\nanswerer = "{LONG}.py:A"', "answerer: a name of 305 bytes"),
        ("[judge_options]\nx = 1979-05-27", "judge_options.x is a date"),
        ("[engine_options]\nx = [[07:32:00]]", "engine_options.x[0][0] is a time"),
        ("[engine_options.a]\nb = 1979-05-27T07:32:00Z", "engine_options.a.b is a datetime"),
        ("[engine_options]\nx = nan", "not finite"),
        ("[protocol]\ntop_p = inf", "not finite"),
        ("[protocol]\nguidance = '3'", "guidance is '3', it must be of kind float"),
        ("[protocol]\nguidanc = 3", "unknown key protocol.guidanc"),
        ("protocol = 5", "protocol must be a table"),
        ("[[protocol]]\na = 1", "protocol must be a table"),
        ("seed = 1\nseed = 2", "broken TOML"),
        ("\x00", "broken TOML"),
    ],
)
def test_recipes_that_cannot_work(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text if "suite =" in text or text.startswith("[a") else GOOD + text, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(BadInput) as caught:
        load_recipe(str(path))
    assert message in str(caught.value)
    assert "recipe.toml" in str(caught.value) or "answerer" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("data", [b"\xff\xfe", b"suite = '\xe4'", b"\xef\xbb\xbfsuite"])
def test_recipes_that_are_no_utf8(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"recipe\.toml.*(not UTF-8|broken TOML)"):
        load_recipe(str(path))


def test_a_recipe_is_utf8_whatever_the_locale(sar_eval, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + 'name = "Bär"\nsuite = "no.jsonl"\n'.encode())
    assert load_recipe(str(path)).name == "Bär"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = sar_eval("run", path, "--ckpt", "demo:sft", env=environment)
    refused(done, "no.jsonl")


@pytest.mark.parametrize("kind", ["directory", "fifo", "unreadable", "loop", "dangling"])
def test_paths_that_are_no_recipe(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unreadable":
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        path.write_text(GOOD)
        path.chmod(0)
    else:
        path.symlink_to(path if kind == "loop" else tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"recipe\.toml|unknown benchmark"):
        load_recipe(str(path))


def test_values_that_are_no_toml_are_text() -> None:
    words = [
        "a=http://h:1/v1",
        "b=two words",
        "c=[1",
        "d='x'",
        "e=5",
        "f=1\ng=2",
        "h=",
        "i=true",
        "j=[x] y",
    ]
    assert named_options("--judge-option", words) == {
        "a": "http://h:1/v1",
        "b": "two words",
        "c": "[1",
        "d": "x",
        "e": 5,
        "f": "1\ng=2",
        "h": "",
        "i": True,
        "j": "[x] y",
    }


def test_kinds_come_from_every_constructor() -> None:
    class Base:
        def __init__(self, *, side: "int" = 1, rate: "float" = 1.0, name: "str | None" = None) -> None: ...

    class Engine(Base):
        def __init__(self, checkpoint: object, *, fast: "bool" = False, **options: object) -> None: ...

    check_kinds(
        Engine, {"side": 2, "rate": 1, "name": "x", "fast": True, "checkpoint": 5, "other": []}, "e"
    )
    for wrong in ({"side": 1.5}, {"side": True}, {"rate": "x"}, {"name": 5}, {"fast": 1}, {"fast": "yes"}):
        with pytest.raises(BadInput, match="must be of kind"):
            check_kinds(Engine, wrong, "engine 'e'")


def test_names_as_long_as_files_can_have_are_taken() -> None:
    check_name("/".join(["x" * 255] * 10), "--out")
    check_storable({"a": [1, 2.5, "x", True, {"b": []}]}, "--engine-option")


def test_bytes_of_the_command_line_that_are_no_utf8(tmp_path: Path) -> None:
    """As a real process: Python hands such bytes over as halves of characters."""
    import subprocess

    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"sar_eval", b"run", b"shapes", b"--ckpt", b"\xff\xfe"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    refused(done, "--ckpt: contains a lone surrogate")
