"""What families say of pictures that are no squares."""

from __future__ import annotations

from pathlib import Path

from sar_eval.documents import convert, read_json
from sar_eval.types import DrawProtocol


def size_notes(protocol: DrawProtocol, pixels: int, folder: Path | None = None) -> tuple[str, ...]:
    """A note on pictures that are no squares, for families that draw them but were trained on squares.

    Args:
        protocol: how to draw.
        pixels: of a visual token along one side.
        folder: of the checkpoint, whose `sar_eval.json` may name other sizes that it was trained on.

    Raises:
        BadInput: that file is broken.
    """
    height, width = protocol.size
    if height == width or (folder is not None and (height // pixels, width // pixels) in _sizes(folder)):
        return ()
    asked = f"{protocol.written_size} pixels (width x height)"
    return (f"{asked} are drawn as asked; the checkpoint was not trained on pictures of that size",)


def _sizes(folder: Path) -> list[tuple[int, int]]:
    """Heights and widths in tokens, as `train` writes them where pictures were no squares of one size."""
    path = folder / "sar_eval.json"
    about = read_json(path) if path.is_file() else {}
    sizes = about.get("sizes", []) if isinstance(about, dict) else []
    return convert(sizes, list[tuple[int, int]], f"{path}, sizes")
