"""Options are declared once: flags, recipe keys, documentation and checks follow the declaration."""

from dataclasses import dataclass, fields

import pytest
import typer
from typer.testing import CliRunner

from sar_eval import options
from sar_eval.cli.options import Output, overrides, with_options
from sar_eval.errors import BadInput
from sar_eval.options import HowToDraw, HowToJudge, WhatToDraw, asked, check_value, declared, option
from sar_eval.recipe import PROTOCOL_KEYS, SETTINGS
from sar_eval.spec import RunSpec
from sar_eval.types import DrawProtocol


def test_the_protocols_options_are_the_protocols_fields() -> None:
    assert set(PROTOCOL_KEYS) == {field.name for field in fields(DrawProtocol)}


def test_the_specs_options_are_fields_of_the_spec() -> None:
    assert set(SETTINGS) <= {field.name for field in fields(RunSpec)}


def test_no_two_groups_declare_the_same_option() -> None:
    names = [field.name for group in options.GROUPS for field, _ in options.options_of(group)]
    assert len(names) == len(set(names)) == len(declared())


def test_a_new_option_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field is enough for the flag, its help, its type and its check."""

    @dataclass(frozen=True, kw_only=True)
    class Extra:
        min_p: float | None = option("Least share of the likeliest token.", "protocol", low=0, high=1)

    monkeypatch.setattr(options, "GROUPS", (*options.GROUPS, Extra))
    declared.cache_clear()
    try:
        received = {}

        def command(extra: Extra, output: Output) -> None:
            received.update(overrides(extra), quiet=output.quiet)

        app = typer.Typer()
        app.command()(with_options()(command))
        assert CliRunner().invoke(app, ["--min-p", "0.25", "-q"]).exit_code == 0
        assert (received["min_p"], received["quiet"]) == (0.25, True)
        assert "Least share of" in CliRunner().invoke(app, ["--help"]).stdout
        assert CliRunner().invoke(app, ["--min-p", "x"]).exit_code == 2
        assert "min_p" in options.names_of("protocol")
        with pytest.raises(BadInput, match="min-p is 2: it must lie between 0 and 1"):
            check_value("min_p", 2)
    finally:
        declared.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_p", 0, "top-p is 0: it must lie above 0 and at most at 1"),
        ("guidance", float("nan"), "guidance is nan"),
        ("batch_size", True, "batch-size is True"),
        ("workers", -1, "--workers is -1"),
    ],
)
def test_values_out_of_range(name: str, value: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_value(name, value)


def test_values_in_range_and_options_without_one() -> None:
    for name, value in (("top_p", 1), ("guidance", 0), ("batch_size", 1), ("engine", "x"), ("seed", -5)):
        check_value(name, value)


def test_what_was_not_asked_for_is_left_out() -> None:
    assert asked(WhatToDraw(seed=0), HowToJudge()) == {"seed": 0, "partial": False}


def test_short_forms_of_an_engines_options_win() -> None:
    how = HowToDraw(engine_option=["window=4", "speculate=false", "name=some text"], speculate=True)
    found = overrides(how)
    assert found["engine_options"] == {"window": 4, "speculate": True, "name": "some text"}
    assert found["judge_options"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 10**23),
        ("workers", 1025),
        ("threads", 10**19),
        ("images_per_prompt", 10**19),
        ("batch_size", 10**19),
    ],
)
def test_numbers_that_would_never_end_are_refused(name: str, value: int) -> None:
    with pytest.raises(BadInput, match=r"must lie between 1 and \d+"):
        check_value(name, value)
