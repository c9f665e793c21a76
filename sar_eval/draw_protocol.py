"""The protocol of a draw; `sar_eval.types` has `DrawProtocol`, too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Json = Any  # as in `sar_eval.types`, which imports this module
_NEWER = ("min_p", "template", "width", "height")  # fields that older versions do not have


@dataclass(frozen=True, slots=True)
class DrawProtocol:
    """Everything that changes the pixels besides the weights.

    Attributes:
        name: of the preset it started from.
        prefix: put before every prompt.
        negative_prompt: text of the negative branch (guidance).
        guidance: s of `log p = log p_neg + s (log p - log p_neg)`; 1 switches the branch off.
        temperature: 0 takes the likeliest token.
        top_k: only the k likeliest visual tokens; 0 keeps all.
        top_p: only the likeliest tokens that together reach this mass; 1 keeps all.
        min_p: only tokens of at least this share of the likeliest one's probability; 0 keeps all.
        template: name of a template of the checkpoint's family, which puts a prompt as the authors of a
            checkpoint do; "" for what the checkpoint's own files say.
        resolution: side of the square image in pixels; the longer side of an image that is no square.
        prefixes: a set of prefixes (see `families.prompting`), of which each branch of each draw gets one
            by the draw's seed, in place of `prefix`; "" for none.
        full_vocab: sample from text tokens too, as the reference does; they become code 0.
        truncate: cut a prompt that is too long for the checkpoint instead of failing its draws.
        width, height: of an image that is no square, in pixels; 0 and 0 for a square.
    """

    name: str
    resolution: int
    prefix: str = ""
    negative_prompt: str = ""
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    prefixes: str = ""
    full_vocab: bool = False
    truncate: bool = False
    min_p: float = 0.0
    template: str = ""
    width: int = 0
    height: int = 0

    def __post_init__(self) -> None:
        """Check that the size is written in the one way, so that equal pictures have one digest.

        Raises:
            ValueError: there is a width without a height, they are those of a square, or the resolution is
                not the longer of them.
        """
        sides = {self.width, self.height}
        if sides != {0} and (min(sides) < 1 or len(sides) == 1 or max(sides) != self.resolution):
            raise ValueError(
                f"width {self.width}, height {self.height} and resolution {self.resolution} are no size: "
                "width and height differ, and the longer of them is the resolution; or both are 0"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.height or self.resolution, self.width or self.resolution

    @property
    def written_size(self) -> str:
        """`512` for a square of 512 pixels, else width x height as `384x512`."""
        return f"{self.width}x{self.height}" if self.width else str(self.resolution)

    def to_json(self) -> dict[str, Json]:
        """As it is stored and hashed: newer fields only where they are set, so that older digests stay."""
        data = asdict(self)
        return {name: value for name, value in data.items() if value or name not in _NEWER}

    def conditions(self) -> dict[str, Json]:
        """What two protocols may differ in: all but the name, with the size as one value."""
        data = asdict(self)
        del data["name"], data["width"], data["height"]
        return data | ({"resolution": self.written_size} if self.width else {})
