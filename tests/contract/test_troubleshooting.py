"""docs/troubleshooting.md quotes messages that the program can say, and every entry has a way on."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### `([^\n]+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
# What other packages and Python say within a message of ours.
FOREIGN = ("ConnectionRefusedError: ",)


@cache
def sources() -> list[str]:
    """Every file of the package, the parts of its texts joined and their escapes undone."""
    paths = [path for kind in ("*.py", "*.js") for path in (ROOT / "sar_eval").rglob(kind)]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    return [
        re.sub(r"[\"']\s*\n\s*f?[\"']", "", text).replace("\\\\", "\\").replace('\\"', '"')
        for text in texts
    ]


def fragments(quoted: str) -> list[str]:
    for foreign in FOREIGN:
        quoted = quoted.replace(foreign, "...")
    return [part.strip() for part in quoted.split("...") if len(part.strip()) > 2]


@pytest.mark.parametrize("quoted", [quoted for quoted, _ in ENTRIES])
def test_the_program_says_so(quoted: str) -> None:
    parts = fragments(quoted)
    assert parts, "nothing to search for"
    assert any(all(part in text for part in parts) for text in sources()), f"no file says all of {parts}"


def test_every_entry_has_a_way_on() -> None:
    assert len(ENTRIES) == PAGE.count("\n### ") >= 50
    assert [quoted for quoted, text in ENTRIES if len(text.split()) < 7] == []
    names = [quoted for quoted, _ in ENTRIES]
    assert len(names) == len(set(names))
