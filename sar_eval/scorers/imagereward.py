"""ImageReward v1.0: how people would like the picture for its prompt, standardised, about -2 to 2.

Xu et al., arXiv 2304.05977; `ImageReward.load("ImageReward-v1.0").score(prompt, picture)` of the package
image-reward 1.5, in `networks.image_reward`. Float32 is official on any device. A prompt is cut to 35
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.shared import acquire, release
from sar_eval.options import check_dtype
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.networks.image_reward.scoring import ImageReward

VERSION = "1"
LABEL = "scorer 'imagereward'"  # in error messages
WEIGHTS = "ImageReward.pt"
VOCABULARIES = ("vocab.txt", "bert-base-uncased/vocab.txt")
SIZES = ("med_config.json", "sizes.json")  # numbers of heads; see `networks.image_reward.shape`

COST = 140.0  # GFLOP: ViT-L/16 has 123, the rest is BERT over 35 tokens that look at 197 patches


class ImageRewardScorer:
    """ImageReward of pictures and prompts."""

    variants: ClassVar[Mapping[str, ScorerFacts]] = {
        "": ScorerFacts("reward", None, None, True, "Apache-2.0", ("imagereward",), COST)
    }
    path_options = ("weights",)  # the version has digests of the files

    def __init__(
        self, *, variant: str = "", device: str = "cpu", dtype: str = "float32", weights: str = ""
    ) -> None:
        """Check the options and find the files, which are loaded on enter.

        Args:
            variant: there is one, "".
            device: torch device.
            dtype: of the network.
            weights: `ImageReward.pt` or its folder, which also has bert-base-uncased's `vocab.txt`; "" for
                the fetched ones.

        Raises:
            BadInput: an unknown dtype or missing files.
            MissingExtra: transformers is not installed.
        """
        check_dtype(dtype, LABEL)
        need("transformers", extra="scorers", what=LABEL)
        self.variant, self.facts = variant, self.variants[variant]
        self.device, self.dtype = device, dtype
        self.weights, self.vocabulary = _find(weights)
        self.version = _version(self.weights, self.vocabulary, dtype)
        self._key = ("imagereward", self.version, str(self.weights), device)

    def __enter__(self) -> Self:
        from sar_eval.networks.image_reward.scoring import ImageReward

        self._network: ImageReward = acquire(
            self._key,
            lambda: ImageReward(self.weights, self.vocabulary, device=self.device, dtype=self.dtype),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network
        release(self._key)

    def prepare(self, picture: Picture) -> NDArray[np.uint8]:
        """Resize and crop the stored picture to the network's square.

        Raises:
            BadInput: an extreme aspect ratio.
        """
        side = self._network.side
        return picture.once(("imagereward", side), lambda: self._network.prepare(picture.image))

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """One reward for each picture, all in one forward pass."""
        errors, inputs = {}, {}
        for index, picture in enumerate(pictures):
            try:
                inputs[index] = self.prepare(picture)
            except BadInput as error:
                errors[index] = Score(error=str(error))
        texts = [prompts[index] for index in inputs]
        rewards = self._network.score(list(inputs.values()), texts) if inputs else []
        found = {i: Score(r.value, truncated=r.truncated) for i, r in zip(inputs, rewards, strict=True)}
        yield from (errors[index] if index in errors else found[index] for index in range(len(pictures)))


def _find(weights: str) -> tuple[Path, Path]:
    """Paths of the weights and of the vocabulary.

    Raises:
        BadInput: one of them is missing.
    """
    found = Path(weights).resolve() if weights else find_weights("imagereward")
    path, folder = (found / WEIGHTS, found) if found.is_dir() else (found, found.parent)
    places = [folder / name for name in VOCABULARIES]
    vocabulary = next((place for place in places if place.is_file()), places[0])
    for missing in (place for place in (path, vocabulary) if not place.is_file()):
        raise BadInput(f"no {missing}: `sar-eval fetch scorers imagereward` downloads ImageReward's files")
    return path, vocabulary


def _version(weights: Path, vocabulary: Path, dtype: str) -> str:
    from sar_eval.tensors.digests import version_of_files

    sizes = [path for name in SIZES if (path := weights.parent / name).is_file()]
    return f"{VERSION}+{version_of_files(weights, [vocabulary, *sizes], dtype)}"


SCORER = ImageRewardScorer
