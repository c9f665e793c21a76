"""What the decoding loop needs to know of an image before it draws one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image of `height` rows of `width` visual tokens, sampled row by row.

    Attributes:
        height, width: in visual tokens.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a grid without a token.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid of {self.height} rows of {self.width} tokens")

    @property
    def codes(self) -> int:
        """Number of visual tokens that are sampled."""
        return self.height * self.width
