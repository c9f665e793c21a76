"""Draw docs/images/losses.svg from the loss curves of the demo checkpoints (needs matplotlib).

python scripts/plot_losses.py build/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

STAGES = {
    "tokenizer": "tokenizer: weighted L1 + L2",
    "pretrain": "pretrain: cross-entropy, noisy scenes",
    "sft": "sft: cross-entropy, tidy scenes",
}


def main(work: Path) -> None:
    """Plot the loss over the steps, one panel per training stage."""
    figure, panels = plt.subplots(1, len(STAGES), figsize=(11, 3.0), layout="constrained")
    for panel, (name, title) in zip(panels, STAGES.items(), strict=True):
        lines = [json.loads(line) for line in (work / name / "loss.jsonl").read_text().splitlines()]
        panel.plot([line["step"] for line in lines], [line["loss"] for line in lines], linewidth=1.2)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parents[1] / "docs" / "images" / "losses.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
