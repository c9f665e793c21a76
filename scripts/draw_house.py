"""Draw docs/images/house.svg: the folders of the package in rows, each row on top of what it uses."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from textwrap import wrap

GROUND = (
    *("types", "protocols", "options", "errors", "documents", "encodings", "tables", "discover", "stats"),
    *("answers", "measures", "comparisons", "histories", "tracked_runs", "checkpoint_steps", "provenance"),
    *("machine", "resume_rules", "draw_protocol"),
)
# Rows from the top; a folder uses rows below its own, never one above and never its neighbour.
ROWS = (
    (("cli", "commands, terminal"),),
    (("rl", "GRPO, DPO, the best of N: training on judged pictures"),),
    (
        ("train", "pretraining, fine-tuning: what makes checkpoints"),
        ("tokenization", "pictures with captions to visual tokens"),
        ("synthesis", "sets of pictures: filtered, ranked, deduplicated"),
    ),
    (
        ("stages", "one verb, one file"),
        ("rewards", "judges that a training asks"),
        ("report", "HTML pages"),
    ),
    (
        ("engines", "draw"),
        ("judges", "give verdicts"),
        ("answerers", "answer questions"),
        ("scorers", "give numbers"),
        ("benchmarks", "fold verdicts"),
        ("trackers", "show runs"),
        ("runtime", "workers, blocks"),
        ("recipe.py", "what is asked for"),
    ),
    (
        ("vllm_guided", "guidance inside vLLM"),
        ("networks", "the judges' networks"),
        ("scoring.py", "several scorers, one decoding"),
    ),
    (("decoding", "the sampling loop: transformer, guidance, sampling, noise, speculation"),),
    (
        ("families", "a checkpoint's files, prompts, codes, pixels"),
        ("suites", "prompts, samplers, verdict rules"),
    ),
    (
        ("tensors", "weight files"),
        ("clients", "HTTP servers"),
        ("images", "image files, grids"),
        ("storage", "run folder, Parquet"),
        ("spec.py", "what a run is"),
    ),
    ((" · ".join(GROUND), "the ground"),),
)
WIDTH, HEIGHT, GAP = 960, 58, 12
LINE, CHARACTERS = (
    19,
    96,
)  # pixels from a line of names to the next, and what fits into one of the whole width


def boxes() -> Iterator[str]:
    """One rectangle for every folder, with its name in as many lines as it needs, and its task."""
    for row, folders in enumerate(ROWS):
        width = (WIDTH - GAP * (len(folders) + 1)) / len(folders)
        top = GAP + row * (HEIGHT + GAP)
        for column, (name, task) in enumerate(folders):
            left = GAP + column * (width + GAP)
            middle, names = left + width / 2, wrap(name, CHARACTERS // len(folders))
            more = LINE * (len(names) - 1)
            yield (
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT + more}" rx="6"/>'
                + "".join(
                    f'<text x="{middle:.0f}" y="{top + 25 + LINE * n}" class="name">{escape(line)}</text>'
                    for n, line in enumerate(names)
                )
                + f'<text x="{middle:.0f}" y="{top + 44 + more}" class="task">{escape(task)}</text>'
            )


def document() -> str:
    """The whole drawing; only the row at the bottom may have names of several lines."""
    height = GAP + len(ROWS) * (HEIGHT + GAP) + LINE * (len(wrap(ROWS[-1][0][0], CHARACTERS)) - 1)
    style = (
        "rect { fill: #eef1fb; stroke: #5567b5; } text { text-anchor: middle; fill: #1c2340; }"
        " .name { font: 600 15px monospace; } .task { font: 12px sans-serif; }"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The folders of sar-eval; each row uses the rows below it</title>",
        f"<style>{style}</style>",
        *boxes(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "images" / "house.svg").write_text(document())
