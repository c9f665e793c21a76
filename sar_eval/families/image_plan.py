"""What the decoding loop needs to know of an image before it draws one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Weights = tuple[float, ...]  # of all branches of a draw but the last, which has what they leave of 1


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image of `height` rows of `width` visual tokens, sampled row by row.

    Its slots are all tokens after the prompt, forced ones included; its codes are those that are sampled.
    A code's noise belongs to its number among the codes, so that forced tokens do not shift it.

    Attributes:
        height, width: in visual tokens.
        weights: how guidance combines the K branches of a draw (see `decoding.guidance`): K - 1 weights
            for all codes, or for each of them in turn.
        forced: ids of the tokens that are not sampled, such as ends of line, by slot. They enter all
            branches. Those behind the last code decide nothing, and are left out by the loop.
    """

    height: int
    width: int
    weights: tuple[Weights, ...] = ((),)
    forced: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a grid without a token, weights that are not as many as they must be, or a forced
                token before the first code or behind the last slot.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid of {self.height} rows of {self.width} tokens")
        if len(self.weights) not in (1, self.codes) or len(set(map(len, self.weights))) != 1:
            raise ValueError(f"weights of {len(self.weights)} tokens, for {self.codes} or for all alike")
        last = self.codes + len(self.forced) - 1
        if outside := [slot for slot in self.forced if not 0 < slot <= last]:
            # One before the first code belongs to the prompt.
            raise ValueError(f"a forced token in slot {outside[0]}: 1 to {last} are possible")

    @property
    def codes(self) -> int:
        """Number of visual tokens that are sampled."""
        return self.height * self.width

    @property
    def code_slots(self) -> list[int]:
        """The slot of each code."""
        return [slot for slot in range(self.codes + len(self.forced)) if slot not in self.forced]

    @property
    def slots(self) -> int:
        """Slots up to the last code."""
        return self.code_slots[-1] + 1

    @property
    def branches(self) -> int:
        """K, sequences of one draw."""
        return len(self.weights[0]) + 1


def guidance_weights(guidance: float) -> tuple[Weights, ...]:
    """Weights of a prompted and a negative branch, or where guidance is 1 of the prompted branch alone."""
    return ((),) if guidance == 1 else ((guidance,),)
