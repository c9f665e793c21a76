"""A picture's size in visual tokens, from its protocol's in pixels."""

from __future__ import annotations

from sar_eval.errors import BadInput
from sar_eval.types import DrawProtocol


def token_grid(protocol: DrawProtocol, pixels: int, what: str) -> tuple[int, int]:
    """Height and width of a protocol's pictures in visual tokens.

    Args:
        protocol: how to draw.
        pixels: of a token along one side.
        what: these pixels are, for messages.

    Raises:
        BadInput: a side is no multiple of `pixels`; the message names the nearest sides that are.
    """
    height, width = protocol.size
    sides = {"width": width, "height": height} if protocol.width else {"resolution": height}
    for name, side in sides.items():
        below = side // pixels * pixels
        if side != below or side < 1:
            near = " and ".join(str(each) for each in (below, below + pixels) if each > 0)
            raise BadInput(f"{name} {side} is no multiple of {pixels}, {what}; the nearest: {near}")
    return height // pixels, width // pixels
