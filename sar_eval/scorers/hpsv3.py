"""HPSv3: how people would like the picture for its prompt, by an 8B network, about -2 to 15.

Ma et al., arXiv 2508.03789; `HPSv3RewardInferencer().reward(pictures, prompts)[:, 0]` of the package
hpsv3 1.0.0, in `networks.hpsv3`, where the positions of tokens are explained: ports that leave them to
Qwen2-VL give other numbers. The number is the mean of the preference; its spread `sigma` is among the
further numbers, as is the head's `sigma_raw`, sigma's logarithm. The authors ran it in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.shared import acquire, release
from sar_eval.options import check_dtype, check_whole_number
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.networks.hpsv3.scoring import Hpsv3, Judgement
    from sar_eval.networks.hpsv3.text import Request

VERSION = "1"
LABEL = "scorer 'hpsv3'"  # in error messages
WEIGHTS = "HPSv3.safetensors"
BASE_FILES = ("config.json", "tokenizer.json")
LICENCE = "MIT; its base Qwen2-VL-7B-Instruct: Apache-2.0"

COST = 9000.0  # GFLOP: 7.6e9 weights over some 500 tokens, 0.7e9 over 1,024 patches


class Hpsv3Scorer:
    """HPSv3 of pictures and prompts."""

    variants: ClassVar[Mapping[str, ScorerFacts]] = {
        "": ScorerFacts("points", None, None, True, LICENCE, ("hpsv3", "hpsv3-base"), COST)
    }
    path_options = ("weights", "base")  # the version has digests of the files
    speed_options = ("pictures_at_once",)

    def __init__(
        self,
        *,
        variant: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        weights: str = "",
        base: str = "",
        pictures_at_once: int = 8,
    ) -> None:
        """Check the options and find the files, which are loaded on enter.

        Args:
            variant: there is one, "".
            device: torch device.
            dtype: of the network's body; the weights are stored as bfloat16, which needs 16 GB, and
                float32 twice as much. The head is float32 in any case.
            weights: `HPSv3.safetensors` or its folder; "" for the fetched file.
            base: folder with `config.json` and `tokenizer.json` of Qwen2-VL-7B-Instruct; "" for the fetched
                one.
            pictures_at_once: of one forward pass, about 1,000 tokens each; those of like length share one.

        Raises:
            BadInput: a value out of range or missing files.
            MissingExtra: transformers is not installed.
        """
        check_dtype(dtype, LABEL)
        check_whole_number("pictures_at_once", pictures_at_once, LABEL)
        need("transformers", extra="scorers", what=LABEL)
        self.variant, self.facts = variant, self.variants[variant]
        self.device, self.dtype, self.pictures_at_once = device, dtype, pictures_at_once
        self.weights, self.base = _find_weights(weights), _find_base(base)
        self.version = _version(self.weights, self.base, dtype)
        self._key = ("hpsv3", self.version, str(self.weights), device)

    def __enter__(self) -> Self:
        from sar_eval.networks.hpsv3.scoring import Hpsv3

        self._network: Hpsv3 = acquire(
            self._key, lambda: Hpsv3(self.weights, self.base, device=self.device, dtype=self.dtype)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network
        release(self._key)

    def prepare(self, picture: Picture) -> NDArray[np.uint8]:
        """Resize the picture to about 200,704 pixels in its own ratio.

        Raises:
            BadInput: an extreme aspect ratio.
        """
        from sar_eval.networks.hpsv3.picture import resize

        return picture.once("hpsv3", lambda: resize(picture.rgb))

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """One score for each picture."""
        requests: dict[int, Request] = {}
        errors: dict[int, Score] = {}
        for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            try:
                requests[index] = self._network.request(self.prepare(picture), prompt)
            except BadInput as error:
                errors[index] = Score(error=str(error))
        inputs = [self.prepare(pictures[index]) for index in requests]
        judged = self._network.score(inputs, list(requests.values()), self.pictures_at_once)
        found = dict(zip(requests, map(_score, judged), strict=True))
        yield from (errors[index] if index in errors else found[index] for index in range(len(pictures)))


def _score(judgement: Judgement) -> Score:
    """The mean; the training's loss reads the second number as the logarithm of the spread."""
    raw = judgement.raw_spread
    sigma = {"sigma": math.exp(raw)} if raw < math.log(1e300) else {}
    return Score(judgement.mean, more={**sigma, "sigma_raw": raw})


def _find_weights(weights: str) -> Path:
    found = Path(weights).resolve() if weights else find_weights("hpsv3")
    path = found / WEIGHTS if found.is_dir() else found
    if not path.is_file():
        raise BadInput(f"no {path}: `sar-eval fetch scorers hpsv3` downloads HPSv3's weights")
    return path


def _find_base(base: str) -> Path:
    found = Path(base).resolve() if base else find_weights("hpsv3-base")
    folder = found if found.is_dir() else found.parent
    for missing in (folder / name for name in BASE_FILES if not (folder / name).is_file()):
        raise BadInput(
            f"no {missing}: `sar-eval fetch scorers hpsv3` downloads the small files of HPSv3's base"
        )
    return folder


def _version(weights: Path, base: Path, dtype: str) -> str:
    from sar_eval.tensors.digests import version_of_files

    return f"{VERSION}+{version_of_files(weights, [base / name for name in BASE_FILES], dtype)}"


SCORER = Hpsv3Scorer
