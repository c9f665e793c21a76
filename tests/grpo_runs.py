"""Small GRPO runs for tests: a recipe with the rigged reward, on a checkpoint of a few kilobytes."""

from pathlib import Path

from sar_eval.rl.grpo_recipe import load_grpo_recipe
from sar_eval.rl.grpo_run import GrpoSetup, train_grpo

JUDGE = f"{Path(__file__).parent / 'even_codes.py'}:JUDGE"
RECIPE = """
[prompts]
suite = "prompts.jsonl"
[protocol]
resolution = 32
guidance = 2.0
temperature = 0.5
[grpo]
steps = 4
prompts = 4
group = 4
micro = 8
learning_rate = 1e-3
warmup = 0
save_every = 1
[rewards.even]
judge = "{judge}"
"""
COLORS = ("red", "blue", "green", "pink", "black", "white")


def write_recipe(folder: Path, more: str = "") -> Path:
    """A recipe with six prompts beside it; `more` are further tables."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f'{{"id": "p{n}", "text": "a blurred {color} star", "tag": "star"}}'
        for n, color in enumerate(COLORS)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(judge=JUDGE) + more)
    return path


def setup_of(checkpoint: Path | str, folder: Path, more: str = "", tables=None, **options) -> GrpoSetup:
    """The recipe's setup with other values of its table [grpo], and of others (`tables`)."""
    recipe = load_grpo_recipe(str(write_recipe(folder, more)), {"grpo": options, **(tables or {})})
    return GrpoSetup.of(recipe, str(checkpoint))


def train(setup: GrpoSetup, out: Path, progress=lambda step, steps, figures: None):
    """Train without a page."""
    return train_grpo(setup, out, lambda folder: None, progress)
