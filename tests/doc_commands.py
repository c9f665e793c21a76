"""The commands that README and docs show, and which of them a test does not run, each with the reason."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("reports/**/*.md")),
    ROOT / "prompts" / "README.md",
)
GENERATED = ROOT / "docs" / "commands.md"  # usage lines; compared with the command line itself elsewhere
LAUNCHERS = ("torchrun", "accelerate")  # whose last words are sar-eval's
PROGRAMS = ("sar-eval", "make", "pip", "python", "docker", "cd", "git", "sh", *LAUNCHERS)
SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page.

    Attributes:
        page: the Markdown file.
        words: the command's own words.
        folder: where a `cd` before it on its line goes.
        output: the lines that the page shows under it, where it stands behind `$ `.
    """

    page: Path
    words: tuple[str, ...]
    folder: str = "."
    output: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As one types it."""
        return shlex.join(self.words)

    def shown_in(self, printed: str) -> bool:
        """Whether all lines of `output` are in what was printed (`...` stands for others)."""
        lines = {" ".join(line.split()) for line in printed.splitlines()}
        return all(" ".join(line.split()) in lines for line in self.output if line != "...")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text}"


def tokens(page: Path) -> list[Token]:
    """A page, parsed as CommonMark with tables."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def commands() -> list[Command]:
    """All commands in code blocks, in order."""
    pages = (page for page in PAGES if page != GENERATED)
    return [command for page in pages for token in tokens(page) for command in _of_block(page, token)]


def _of_block(page: Path, token: Token) -> Iterator[Command]:
    if token.type not in ("fence", "code_block") or token.info.strip() not in SHELL:
        return
    lines = token.content.replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("$ "):
            shown = takewhile(lambda line: not line.startswith("$ "), lines[number + 1 :])
            yield replace(next(_of_line(page, line.removeprefix("$ "))), output=tuple(shown))
        elif line.split(" ")[0] in PROGRAMS:
            yield from _of_line(page, line)


def _of_line(page: Path, line: str) -> Iterator[Command]:
    folder = "."
    for part in line.split(" && "):
        words = tuple(shlex.split(part, comments=True))
        if words[0] == "cd":
            folder = words[1]
        else:
            yield Command(page, words, folder)


def inline_commands() -> Iterator[tuple[Path, str]]:
    """What running text says in `backticks` of sar-eval's command line."""
    for page in PAGES:
        for child in (child for token in tokens(page) for child in token.children or []):
            if child.type == "code_inline" and child.content.startswith("sar-eval "):
                yield page, child.content


# Commands that no test runs as they stand, by a pattern of their text, and why. Where a test runs something
# close to it, its file is named. All others are run, page by page (`tests/contract/test_docs.py`).
NOT_RUN = {
    r"(torchrun|accelerate launch) .*": (
        "needs cards; tests/e2e/test_torchrun.py and test_ranks.py launch processes on the CPU"
    ),
    r"make (demo|test)": "installs; CI is `make test`, and tests/e2e/test_demo_checkpoints.py draws",
    r"make demo-rl|sar-eval train (grpo|dpo|select|sft) .*|sar-eval run shapes --ckpt (runs|build)/.*": (
        "trains for minutes; tests/e2e/test_grpo.py and test_train_rivals.py train small ones"
    ),
    r"make (demo|factored)-checkpoints|python scripts/judge_tokenizer\.py build/.*": (
        "trains for an hour; tests/unit/train/test_fit.py and unit/families/test_factored.py train little"
    ),
    r"pip install .*": "installs gigabytes; tests/contract/test_release.py, tests/e2e/test_wheel.py",
    r"docker .*": "no container engine; tests/contract/test_release.py reads the Dockerfile",
    r"sar-eval run shapes --ckpt (demo:.*|path/to/checkpoint.*)": (
        "1,440 images, half a minute each; tests/e2e/test_demo_checkpoints.py runs two of them"
    ),
    r"sar-eval (prompts )?fetch (geneval|dpg|scorers (?!--dry-run).*)": (
        "needs a network; tests/e2e/test_fetch.py serves some"
    ),
    r"sar-eval generate .* --ckpt path/to/pipeline .*": (
        "needs a pipeline of diffusers; tests/e2e/test_diffusers_runs.py has a tiny one"
    ),
    r"sar-eval (run|generate) .* --engine server .*": (
        "needs a server of pictures; tests/e2e/test_server_runs.py has one"
    ),
    r"sar-eval (run|score) geneval .*": "needs GenEval's weights; tests/e2e/test_score.py has small ones",
    r"sar-eval (run|score) (dsg|hpsv2|imagereward) .*|sar-eval prompts fetch (dsg|hpsv2)": (
        "needs suites and weights; tests/e2e/test_reward_benchmarks.py has small ones"
    ),
    r"sar-eval (run|score) wise .*|sar-eval prompts fetch wise|vllm serve .*": (
        "needs WISE's files and a server; tests/e2e/test_rubric_server.py has one"
    ),
    r"sar-eval (score scores --images DIR|judge (RUN|runs/.*)) --.*": (
        "needs pictures and weights; tests/cli/test_scorers.py has some that need no weights"
    ),
    r"sar-eval score posters\.toml .*|sar-eval judge RUN --judge rubric .*": (
        "needs a server; tests/e2e/test_rubric_examples.py has one"
    ),
    r"sar-eval (run|score|doctor) dpg( .*)?": "needs DPG's files; tests/e2e/test_dpg.py has small ones",
    r"sar-eval distance .*": "needs networks' weights; tests/cli/test_distance_command.py has small ones",
    r"sar-eval doctor scorers.*": "needs their weights; tests/e2e/test_doctor_scorers.py has small ones",
    r"sar-eval prompts import dpg .*": "needs DPG's files; tests/e2e/test_dpg.py makes some",
    r"sar-eval (join|report) ('runs/share-\*' --out )?runs/(all|geneval-all)": (
        "needs the shares of several nodes; tests/e2e/test_shards.py"
    ),
    r"sar-eval manifest DIR geneval.*": "needs a folder of images; tests/e2e/test_score.py makes some",
    r"sar-eval compare (A|runs/|reports/baselines/shapes-sft\.parquet runs/).*": (
        "needs finished runs; tests/cli/test_compare.py stores some"
    ),
    r"sar-eval history runs": "needs runs of checkpoints; tests/cli/test_history_command.py makes some",
    r"sar-eval (track|summarize) runs/.*": "needs a finished run; tests/e2e/test_tracking.py makes one",
    r"sar-eval (gate|baseline save) .*": (
        "needs finished runs; tests/cli/test_gate.py stores some, tests/e2e/test_gate_in_ci.py draws some"
    ),
    r"sar-eval train grpo simplear-.*|python -m benchmarks\.speed\.grpo .*": (
        "needs SimpleAR's weights and a card; tests/unit/rl/test_grpo_recipes.py loads the recipes"
    ),
    r"python scripts/make_scene_prompts\.py .*|sar-eval synth scenes\.parquet .*": (
        "draws for half an hour; tests/e2e/test_synth_demo.py draws a few"
    ),
    r"sar-eval synth (status )?.*s3://.*": "needs a bucket; tests/unit/storage/test_set_on_s3.py has one",
    r"sar-eval (ckpt info|generate .*--ckpt) deepseek-ai/.*": (
        "needs a network and real weights; tests/unit/families/test_janus.py has tiny ones"
    ),
    r"sar-eval (ckpt info|generate .*--ckpt) BAAI/.*": (
        "needs a network and real weights; tests/e2e/test_emu3_hub.py has a local server and tiny ones"
    ),
    r"sar-eval (ckpt info|generate .*--ckpt) peizesun/.*": (
        "needs a network and real weights; tests/e2e/test_hub.py has a local server and tiny ones"
    ),
    r"sar-eval ckpt info Daniel0724/.*": "needs a network; tests/e2e/test_hub.py has a local server",
}


def why_not_run(command: Command) -> str:
    """The reason for which no test runs a command, "" if one does."""
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command.text)), "")
