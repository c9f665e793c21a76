"""What the wheel carries beside the package: recipes, prompt files and published scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Pattern in the repository to folder in the package; `recipe.shipped` looks there first.
SHIPPED = {
    "benchmarks/*.toml": "sar_eval/recipes",
    "benchmarks/grpo/*.toml": "sar_eval/recipes/grpo",
    "benchmarks/train/*": "sar_eval/recipes/train",
    "prompts/*": "sar_eval/prompt_files",
    "reports/published.json": "sar_eval/suites",
}


class ShippedFiles(BuildHookInterface[Any]):
    """Adds the files of `SHIPPED`, so that a new recipe needs no line in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        del version
        root = Path(self.root)
        for pattern, folder in SHIPPED.items():
            for path in sorted(root.glob(pattern)):
                build_data["force_include"][str(path)] = f"{folder}/{path.name}"
