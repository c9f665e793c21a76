"""What the decoding loop needs to know of an image before it draws one."""

from __future__ import annotations

from dataclasses import dataclass

Weights = tuple[float, ...]  # of all branches of a draw but the last, which has what they leave of 1


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image of `height` rows of `width` visual tokens, sampled row by row.

    Attributes:
        height, width: in visual tokens.
        weights: how guidance combines the K branches of a draw (see `decoding.guidance`): K - 1 weights
            for all tokens, or for each of them in turn.
    """

    height: int
    width: int
    weights: tuple[Weights, ...] = ((),)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a grid without a token, or weights that are not as many as they must be.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid of {self.height} rows of {self.width} tokens")
        if len(self.weights) not in (1, self.codes) or len(set(map(len, self.weights))) != 1:
            raise ValueError(f"weights of {len(self.weights)} tokens, for {self.codes} or for all alike")

    @property
    def codes(self) -> int:
        """Number of visual tokens that are sampled."""
        return self.height * self.width

    @property
    def branches(self) -> int:
        """K, sequences of one draw."""
        return len(self.weights[0]) + 1


def guidance_weights(guidance: float) -> tuple[Weights, ...]:
    """Weights of a prompted and a negative branch, or where guidance is 1 of the prompted branch alone."""
    return ((),) if guidance == 1 else ((guidance,),)
