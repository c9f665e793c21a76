"""What a run was made with: package versions and the source checkout's commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sar_eval import __version__


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"sar_eval": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "pillow", "opencv-python-headless", "pyarrow", "tokenizers", "vllm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the source checkout sar-eval runs from, if it is one."""
    source = Path(__file__).parents[1]
    if not (source / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None
