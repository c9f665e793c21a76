"""PickScore: how well users of Pick-a-Pic would like a picture for its prompt (a tuned CLIP ViT-H/14).

The README's formula of https://github.com/yuvalkirstain/PickScore: exp(logit scale) times the cosine, about
18 to 24. Others print the cosine alone, or a 26th. The probability that one of two pictures is preferred is
the softmax of their two scores: `sar_eval.stats.preference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import PICKSCORE, ClipSource
from sar_eval.networks.clip.tokenizers import hf_tokens
from sar_eval.options import check_choice, check_dtype
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

VERSION = "1"
LABEL = "scorer 'pickscore'"  # in error messages
TRANSFORM = "hf"
LICENCE = "MIT (its repository; the weights' card states none)"
COST = 382.0  # GFLOP: ViT-H/14 and a prompt of 77 tokens (open_clip, docs/model_profile.csv)
FACTS = ScorerFacts("logit", None, None, True, LICENCE, weights=("pickscore",), cost=COST)


class PickScore:
    """Logits of Pick-a-Pic's preference model."""

    variants = MappingProxyType({"": FACTS})
    path_options = ("weights", "config")  # the version has digests of both
    preference = "softmax"  # of two scores of one prompt: the probability that a picture is preferred

    def __init__(
        self,
        variant: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        *,
        weights: str = "",
        config: str = "",
    ) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            variant: there is one, "".
            device: torch device.
            dtype: of the network; use float32 for figures to publish.
            weights: a file or a folder; "" for the fetched one.
            config: architecture, a name in open_clip or a .json file (open_clip's form or Hugging
                Face's); "" for ViT-H-14.

        Raises:
            BadInput: an unknown option, or missing weights.
        """
        check_choice("variant", variant, list(self.variants), LABEL)
        check_dtype(dtype, LABEL)
        self.facts, self.variant = FACTS, variant
        self.held = HeldClip(ClipSource(PICKSCORE, weights, config, device, dtype))
        self.version = f"{VERSION}+{self.held.source.version}"

    def __enter__(self) -> Self:
        self.network = self.held.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        del self.network
        self.held.__exit__(*error)

    def prepare(self, picture: Picture) -> None:
        """Resize and crop."""
        self.network.prepare(picture, TRANSFORM)

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """The logit of each picture for its prompt."""
        scale = self.network.logit_scale
        for score in self.network.score_pairs(pictures, prompts, TRANSFORM, hf_tokens):
            yield score if score.value is None else replace(score, value=scale * score.value)


SCORER = PickScore
