"""HPSv2.1 and HPSv2.0: how well people would like a picture for its prompt (a tuned CLIP ViT-H/14).

The formula of https://github.com/tgxs002/HPSv2 (`hpsv2/img_score.py`): the cosine of picture and prompt,
without a logit scale; its benchmark prints 100 times that. `hpsv2.score()` has v2.0 as its default,
`hpsv2.evaluate()` v2.1; the two have other scales. Float32, where the original is half precision on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import HPS_V20, HPS_V21, ClipSource
from sar_eval.networks.clip.tokenizers import open_clip_tokens
from sar_eval.options import check_choice, check_dtype
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

VERSION = "1"
LABEL = "scorer 'hps'"  # in error messages
RESIZES = ("antialias", "aliased")
PUBLISHED = {"v2.1": HPS_V21, "v2.0": HPS_V20}

COST = 382.0  # GFLOP: ViT-H/14 and a prompt of 77 tokens (open_clip, docs/model_profile.csv)


def _facts(weights: str) -> ScorerFacts:
    return ScorerFacts("cosine", -1.0, 1.0, True, "Apache-2.0", weights=(weights,), cost=COST)


class Hps:
    """Human Preference Score v2."""

    variants = MappingProxyType({"v2.1": _facts("hps-v2.1"), "v2.0": _facts("hps-v2.0")})
    path_options = ("weights", "config")  # the version has digests of both

    def __init__(
        self,
        variant: str = "v2.1",
        device: str = "cpu",
        dtype: str = "float32",
        *,
        weights: str = "",
        config: str = "",
        resize: str = "antialias",
    ) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            variant: "v2.1" or "v2.0".
            device: torch device.
            dtype: of the network; use float32 for figures to publish.
            weights: a file; "" for the fetched one.
            config: architecture, a name in open_clip or a .json file; "" for ViT-H-14.
            resize: "antialias", as torchvision resizes since 0.17 and so the pip package does today; or
                "aliased", as before, when the network was tuned.

        Raises:
            BadInput: an unknown option or variant, or missing weights.
        """
        check_choice("variant", variant, list(self.variants), LABEL)
        check_choice("resize", resize, RESIZES, LABEL)
        check_dtype(dtype, LABEL)
        self.facts, self.variant, self.transform = self.variants[variant], variant, f"hps-{resize}"
        self.held = HeldClip(ClipSource(PUBLISHED[variant], weights, config, device, dtype))
        self.version = f"{VERSION}+{variant}+{resize}+{self.held.source.version}"

    def __enter__(self) -> Self:
        self.network = self.held.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        del self.network
        self.held.__exit__(*error)

    def prepare(self, picture: Picture) -> None:
        """Resize and pad."""
        self.network.prepare(picture, self.transform)

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """The cosine of each picture and its prompt."""
        yield from self.network.score_pairs(pictures, prompts, self.transform, open_clip_tokens)


SCORER = Hps
