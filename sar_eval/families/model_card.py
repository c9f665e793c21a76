"""What a model card, the README.md of a folder of the hub, says of the licence."""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
NOT_STATED = "not stated"


def licence(folder: Path) -> str:
    """The licence in the header of a folder's card; "" if there is no card, or it says nothing."""
    path = folder / CARD
    card = path.read_text(errors="replace") if path.is_file() else ""
    header = card.split("\n---", 1)[0] if card.startswith("---") else ""
    lines = dict(re.findall(r"^(license|license_name):[ \t]*['\"]?([^'\"\n#]+)", header, re.MULTILINE))
    return str(lines.get("license_name") or lines.get("license") or "").strip()
