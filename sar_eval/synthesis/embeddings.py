"""Embeddings of kept pictures, stored in the manifest: what `synth dedup --by embedding` compares.

The network is OpenAI's CLIP ViT-L/14, which several scorers use, too (`imagereward`, `aesthetic`): it is
loaded once for all, and a picture that one of them has seen is not encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.source import OPENAI_L14, ClipSource
from sar_eval.options import check_choice
from sar_eval.scoring import lost_device

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture

NETWORK = "clip"
TRANSFORM = "openai"  # how scorers that share the network prepare pictures
LABEL = "the option --embed"


def embedding_name(asked: str) -> str:
    """The network with the version of its weights, as a set's spec names it; "" for none.

    Raises:
        BadInput: there is no such network, or its weights are not here.
    """
    if not asked:
        return ""
    check_choice("network", asked, [NETWORK], LABEL)
    return _name(ClipSource(OPENAI_L14))


def _name(source: ClipSource) -> str:
    return f"{NETWORK}:{source.version}"


class Embedder:
    """Embeds pictures while it is entered."""

    def __init__(self, source: ClipSource) -> None:
        """Load nothing yet."""
        self.name = _name(source)
        self._held = HeldClip(source)

    @classmethod
    def of_set(cls, name: str, device: str) -> Self:
        """The embedder that a set's spec names.

        Raises:
            BadInput: this machine has no weights, or others.
        """
        embedder = cls(ClipSource(OPENAI_L14, device=device))
        if embedder.name != name:
            raise BadInput(
                f"the set was begun with embeddings of {name}, but this machine has {embedder.name}: "
                "`sar-eval fetch scorers clip` gets the same weights"
            )
        return embedder

    def __enter__(self) -> Self:
        self._network = self._held.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        del self._network
        self._held.__exit__(*error)

    def embed(self, pictures: Sequence[Picture]) -> list[NDArray[np.float16] | None]:
        """Float16 `[D]` of length 1 for each picture; None where the network takes none of its shape.

        Raises:
            DeviceLost: the device failed.
        """
        try:
            rows = self._network.image_rows(pictures, TRANSFORM)
        except Exception as error:
            if lost := lost_device(error):
                raise lost from error
            raise
        return [None if isinstance(row, str) else _unit(row.numpy()) for row in rows]


def _unit(features: NDArray[np.float32]) -> NDArray[np.float16]:
    """Divided by its length, in float64 so that every machine rounds alike."""
    exact = features.astype(np.float64)
    return np.asarray(exact / np.sqrt((exact * exact).sum()), np.float16)
