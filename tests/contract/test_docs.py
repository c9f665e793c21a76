"""README and docs: links lead somewhere, commands exist, and those that can be run are run."""

import os
import re
import shutil
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from sar_eval.cli import app
from tests.doc_commands import (
    GENERATED,
    LAUNCHERS,
    NOT_RUN,
    PAGES,
    PROGRAMS,
    ROOT,
    Command,
    commands,
    inline_commands,
    tokens,
    why_not_run,
)
from tests.warm_command import WarmCommand

COMMANDS = commands()
RUN_PAGES = sorted({c.page for c in COMMANDS if not why_not_run(c)})


def _links(page: Path) -> list[str]:
    inline = [child for token in tokens(page) for child in token.children or []]
    return [str(child.attrs[name]) for child in inline for name in ("href", "src") if name in child.attrs]


def _anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and mkdocs make them."""
    parsed, found = tokens(page), set()
    for opened, text in pairwise(parsed):
        if opened.type == "heading_open":
            words = "".join(child.content for child in text.children or [])
            found.add(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
    return found


def _dead_links(page: Path) -> list[str]:
    dead = []
    for link in _links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        away = re.match(r"[a-z]+:", link) is not None
        if not away and (not target.exists() or (anchor and anchor not in _anchors(target))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert _dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`\n\n[a](#one-two) [b](#three) ![c](no.png) [d](page.md#one-two) [e](http://f)\n"
    )
    assert _dead_links(page) == ["#three", "no.png"]


def _parse(words: Sequence[str]) -> None:
    """Parse a command line of sar-eval's as the command would, without running it."""
    command, rest = typer.main.get_command(app), list(words[1:])
    while hasattr(command, "commands"):
        default = getattr(command, "default", None)
        is_left_out = default is not None and rest[0] not in command.commands
        command = command.commands[default if is_left_out else rest.pop(0)]
    command.make_context(command.name, rest)


def _of_sar_eval(command: Command) -> tuple[str, ...]:
    """The words from `sar-eval` on, in a container, started by a launcher, or by themselves."""
    if command.words[0] in LAUNCHERS:
        at = command.words.index("-m")
        assert command.words[at + 1] == "sar_eval"
        return ("sar-eval", *command.words[at + 2 :])
    in_container = command.words[:2] == ("docker", "run")
    return command.words[command.words.index("sar-eval") if in_container else 0 :]


@pytest.mark.parametrize("command", [c for c in COMMANDS if _of_sar_eval(c)[0] == "sar-eval"], ids=str)
def test_commands_parse(command: Command) -> None:
    _parse(_of_sar_eval(command))


@pytest.mark.parametrize(
    "line", ["runn shapes", "run shapes", "run shapes --ckpt X --wrong", "run shapes --ckpt X -n many"]
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"runn|Missing|No such option|valid integer"):
        _parse(("sar-eval", *line.split()))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] in LAUNCHERS], ids=str)
def test_config_files_of_launchers_exist(command: Command) -> None:
    assert all((ROOT / word).is_file() for word in command.words if word.endswith(".yaml"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "make"], ids=str)
def test_make_targets_exist(command: Command) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(command.words[1:]) <= set(targets)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "pip"], ids=str)
def test_installed_extras_and_files_exist(command: Command) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\[([\w,]+)\]", " ".join(command.words))
    assert {extra for group in named for extra in group.split(",")} <= extras.keys()
    assert all((ROOT / word).is_file() for word in command.words if word.endswith(".txt"))


def _unknown_words(text: str) -> list[str]:
    """Commands and options in running text that do not exist; words in capitals stand for anything."""
    found, words = [typer.main.get_command(app)], re.sub(r"[\[\]]", "", text).split()[1:]
    while (
        words
        and hasattr(found[0], "commands")
        and re.fullmatch(r"[a-z|-]+", words[0])
        and words[0][0] != "-"
    ):
        names = words.pop(0).split("|")
        if unknown := [name for name in names if name not in found[0].commands]:
            return unknown
        found = [found[0].commands[name] for name in names]
    if default := getattr(found[0], "default", None):  # a group whose command was left out
        found = [found[0].commands[default]]
    known = {"--help", *(option for command in found for p in command.params for option in p.opts)}
    return [word for word in words if word.startswith("-") and word not in known]


@pytest.mark.parametrize(("page", "text"), [(p, t) for p, t in inline_commands() if p != GENERATED])
def test_commands_in_running_text_exist(page: Path, text: str) -> None:
    assert _unknown_words(text) == []


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_commands_of_scripts_exist(script: Path) -> None:
    text = script.read_text().replace("\\\n", " ")
    found = re.findall(r"(?:^|[|;] *|\|\| )(sar-eval .*?)(?: *;|$)", text, re.MULTILINE)
    assert found
    for command in found:
        assert _unknown_words(re.sub(r'"?\$\{?\w+\}?[\w/.-]*"?', "X", command)) == [], command


def test_unknown_words_in_running_text_are_noticed() -> None:
    assert _unknown_words("sar-eval train sft|soft") == ["soft"]
    assert _unknown_words("sar-eval list --yaml") == ["--yaml"]
    assert _unknown_words("sar-eval doctor dpg [--weights FOLDER]") == []


def test_every_reason_not_to_run_is_used_and_true() -> None:
    texts = [command.text for command in COMMANDS]
    for pattern, why in NOT_RUN.items():
        assert any(re.fullmatch(pattern, text) for text in texts), f"no page has {pattern!r} any more"
        assert all((ROOT / named).is_file() for named in re.findall(r"tests/[\w/]+\.py", why)), why


def test_only_sar_eval_is_left_to_run() -> None:
    assert {c.words[0] for c in COMMANDS} <= {*PROGRAMS}
    assert {c.words[0] for c in COMMANDS if not why_not_run(c)} == {"sar-eval"}


def test_other_output_than_shown_is_noticed() -> None:
    shown = [c for c in COMMANDS if c.output]
    assert shown
    assert all(c.shown_in("\n".join(c.output)) and not c.shown_in(c.output[0]) for c in shown)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader of any page has: a clone's examples, some prompts, a checkpoint."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    shutil.copytree(ROOT / "reports" / "baselines", tmp_path / "reports" / "baselines")
    lines = (ROOT / "prompts" / "shapes.jsonl").read_text().splitlines()
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines[::90]) + "\n")
    shutil.copytree(ROOT / "sar_eval" / "demo", tmp_path / "path" / "to")
    (tmp_path / "path" / "to" / "sft").rename(tmp_path / "path" / "to" / "checkpoint")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_commands_run(page: Path, folder: Path, warm: WarmCommand) -> None:
    environment = {
        **os.environ,
        "SAR_EVAL_CACHE": str(folder / "cache"),
        "SAR_EVAL_OFFLINE": "1",
    }
    for command in (c for c in COMMANDS if c.page == page and not why_not_run(c)):
        done = warm.completed(command.words[1:], 240, environment, folder / command.folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert command.shown_in(done.stdout), f"{command} prints\n{done.stdout}"
