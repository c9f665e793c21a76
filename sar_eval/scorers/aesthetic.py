"""LAION's aesthetic predictors v2 and v1: how much people like looking at a picture, about 1 to 10.

A linear head on the unit image vector of OpenAI's CLIP ViT-L/14, the network of GenEval's colours and of
`clip:imagereward`; it is loaded once for all of them. v2 is `sac+logos+ava1-l14-linearMSE`. Version 2.5,
another network under the AGPL, is not offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from sar_eval.errors import BadInput
from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import OPENAI_L14, ClipSource, refuse_others
from sar_eval.options import check_choice, check_dtype
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

VERSION = "1"
LABEL = "scorer 'aesthetic'"  # in error messages
TRANSFORM = "openai"
NORMALIZATIONS = {"v2": ("float32", "float16"), "v1": ("float32",)}


COST = 162.0  # GFLOP: the image tower of ViT-L/14 (open_clip, docs/model_profile.csv)


def _facts(name: str, licence: str) -> ScorerFacts:
    return ScorerFacts("points", None, None, False, licence, weights=(name, "clip"), cost=COST)


class Aesthetic:
    """Aesthetic scores."""

    variants = MappingProxyType(
        {
            "v2": _facts("aesthetic-v2", "Apache-2.0 (head), MIT (CLIP)"),
            "v1": _facts("aesthetic-v1", "MIT"),
        }
    )
    path_options = ("weights", "clip_weights", "config")  # the version has digests of them

    def __init__(
        self,
        variant: str = "v2",
        device: str = "cpu",
        dtype: str = "float32",
        *,
        weights: str = "",
        clip_weights: str = "",
        config: str = "",
        normalization: str = "float32",
    ) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            variant: "v2" or "v1".
            device: torch device.
            dtype: of CLIP; the head is always float32. Use float32 for figures to publish.
            weights: file of the head; "" for the fetched one.
            clip_weights: CLIP's file; "" for the fetched one.
            config: CLIP's architecture, a name in open_clip or a .json file; "" for ViT-L-14-quickgelu.
            normalization: precision in which v2 normalises the image vector; the official script's is
                float16 on a GPU and float32 on the CPU.

        Raises:
            BadInput: an unknown option or variant, or missing weights.
        """
        check_choice("variant", variant, list(self.variants), LABEL)
        check_choice("normalization", normalization, NORMALIZATIONS[variant], LABEL)
        check_dtype(dtype, LABEL)
        self.facts, self.variant, self.half = self.variants[variant], variant, normalization == "float16"
        self.head_file = _head_file(weights, self.facts.weights[0])
        self.held = HeldClip(ClipSource(OPENAI_L14, clip_weights, config, device, dtype))
        precision = "+float16-normalization" if self.half else ""
        digests = f"{file_digest(self.head_file)[:8]}+{self.held.source.version}"
        self.version = f"{VERSION}+{variant}{precision}+{digests}"

    def __enter__(self) -> Self:
        from sar_eval.networks.clip.aesthetic_heads import AestheticHead

        self.head = AestheticHead(self.variant, self.head_file)
        with ExitStack() as stack:
            self.network = stack.enter_context(self.held)
            width = self.network.model.visual.output_dim
            if width != self.head.width:
                raise BadInput(
                    f"{self.head_file} takes {self.head.width} numbers, but this CLIP gives {width}: it is "
                    "the head of another CLIP"
                )
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        del self.network, self.head
        self.held.__exit__(*error)

    def prepare(self, picture: Picture) -> None:
        """Resize and crop."""
        self.network.prepare(picture, TRANSFORM)

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """The aesthetic score of each picture; prompts do not matter."""
        rows = self.network.image_rows(pictures, TRANSFORM)
        for row, _ in zip(rows, prompts, strict=True):
            if isinstance(row, str):
                yield Score(error=row)
            else:
                yield Score(float(self.head.score(row[None], half=self.half)[0]))


def _head_file(path: str, name: str) -> Path:
    found = Path(path) if path else find_weights(name)
    if not found.is_file():
        raise BadInput(f"no file {found} for {LABEL}")
    refuse_others(found, file_digest(found), (name,))
    return found


SCORER = Aesthetic
