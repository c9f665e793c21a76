"""A CLIP network that scorers and GenEval's colour classifier share.

Each picture is encoded once for all who prepare it in the same way: its features are kept on the picture.
Features of texts are kept here, those of the latest `MAX_TEXTS`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.clip.architecture import build, check_activation, read_architecture
from sar_eval.networks.clip.tokenizers import Tokens
from sar_eval.networks.clip.transforms import Transform
from sar_eval.networks.clip.weights import read_state, sha256, weight_file
from sar_eval.networks.shared import acquire, release
from sar_eval.tensors.mismatch import describe_mismatch

MAX_TEXTS = 4096  # kept features, 4 kB each
MAX_BATCH = 64  # pictures or texts of one forward pass; more gain nothing


@dataclass(frozen=True)
class ClipSource:
    """Where a network comes from and how it is to compute.

    Attributes:
        weights: the file.
        config: its architecture, as `read_architecture` takes it.
        published: name of the architecture that the published weights have.
        quick_gelu: what the weights were trained with.
        device, dtype: of the network.
    """

    weights: Path
    config: str
    published: str
    quick_gelu: bool
    device: str = "cpu"
    dtype: str = "float32"
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Hash the weights.

        Raises:
            BadInput: no such file, or no such configuration file.
        """
        object.__setattr__(self, "weights", weight_file(self.weights))
        object.__setattr__(self, "digest", sha256(self.weights))
        if self.config.endswith(".json") and not Path(self.config).is_file():
            raise BadInput(f"no CLIP configuration {self.config}")

    @property
    def version(self) -> str:
        """Digests of all that decides what the network computes, for a scorer's version."""
        found = [self.digest[:8]]
        if self.config.endswith(".json"):
            found.append(sha256(Path(self.config))[:8])
        elif self.config != self.published:
            found.append(self.config)
        return "+".join(found if self.dtype == "float32" else [*found, self.dtype])

    @property
    def key(self) -> Hashable:
        """Sources with equal keys are one network."""
        config = sha256(Path(self.config)) if self.config.endswith(".json") else self.config
        return ("clip", self.digest, config, self.quick_gelu, str(self.device), self.dtype)

    def acquire(self) -> ClipNetwork:
        """The network, loaded if nobody in this process has it.

        Raises:
            BadInput: unknown architecture, the wrong activation, or weights that do not fit.
        """
        return acquire(self.key, lambda: ClipNetwork(self))

    def release(self) -> None:
        """Give it back."""
        release(self.key)


class ClipNetwork:
    """Features of pictures and texts."""

    def __init__(self, source: ClipSource) -> None:
        """Build the architecture and load the weights, in evaluation mode.

        Raises:
            BadInput: as `ClipSource.acquire`.
        """
        self.key, self.device, self.dtype = source.key, torch.device(source.device), source.dtype
        self.model = build(read_architecture(source.config), source.config)
        check_activation(
            self.model, source.config, quick_gelu=source.quick_gelu, published=source.published
        )
        self._load(source.weights)
        self.image_size = int(self.model.visual.image_size[0])
        self._texts: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def _load(self, path: Path) -> None:
        """Strictly; the file's half precision is widened, or rounded to the network's dtype."""
        state = read_state(path)
        if mismatch := describe_mismatch(state, self.model.state_dict()):
            raise BadInput(f"{path} does not fit the CLIP model: {mismatch}")
        self.logit_scale = float(state["logit_scale"].float().exp())
        dtype = getattr(torch, self.dtype)
        placed = {name: tensor.to(self.device, dtype) for name, tensor in state.items()}
        self.model.load_state_dict(placed, strict=True, assign=True)
        self.model.to(self.device, dtype)  # the mask of the text tower

    def prepare(self, picture: Picture, transform: Transform) -> Tensor:
        """What enters the network: float32 `[3, size, size]`, made once for a picture."""
        size = self.image_size
        return picture.once(("pixels", transform.name, size), lambda: transform.make(picture, size))

    def image_features(self, pictures: Sequence[Picture], transform: Transform) -> Tensor:
        """Float32 `[N, D]` on the CPU, not normalised; each picture is encoded once for a transform."""
        key = ("features", self.key, transform.name)
        missing = [picture for picture in dict.fromkeys(pictures) if not picture.has(key)]
        for start in range(0, len(missing), MAX_BATCH):
            batch = missing[start : start + MAX_BATCH]
            pixels = torch.stack([self.prepare(picture, transform) for picture in batch])
            for picture, row in zip(batch, self.encode_pixels(pixels).cpu(), strict=True):
                picture.keep(key, row)
        return torch.stack([picture.once(key, _missing) for picture in pictures])

    def text_features(self, texts: Sequence[Tokens]) -> Tensor:
        """Float32 `[N, D]` on the CPU, not normalised; those of the latest texts are kept."""
        wanted = [text.ids for text in texts]
        missing = [ids for ids in dict.fromkeys(wanted) if ids not in self._texts]
        fresh: dict[tuple[int, ...], Tensor] = {}
        for start in range(0, len(missing), MAX_BATCH):
            batch = missing[start : start + MAX_BATCH]
            fresh |= zip(batch, self.encode_tokens(batch).cpu(), strict=True)
        rows = torch.stack([fresh[ids] if ids in fresh else self._texts[ids] for ids in wanted])
        self._texts |= fresh
        for ids in dict.fromkeys(wanted):
            self._texts.move_to_end(ids)
        while len(self._texts) > MAX_TEXTS:
            self._texts.popitem(last=False)
        return rows

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Float32 `[N, D]` of prepared pictures `[N, 3, H, W]`, not normalised."""
        features: Tensor = self.model.encode_image(pixels.to(self.device, getattr(torch, self.dtype)))
        return features.float()

    @torch.inference_mode()
    def encode_tokens(self, texts: Sequence[tuple[int, ...]]) -> Tensor:
        """Float32 `[N, D]` of token ids, not normalised.

        As open_clip's `encode_text`, without what lies behind the longest text: attention is causal, so
        no feature depends on it. A text is read at its greatest id, which is the first end token.
        """
        model = self.model
        length = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts], device=self.device)
        x = model.token_embedding(ids) + model.positional_embedding[:length]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        x = x[torch.arange(len(texts), device=self.device), ids.argmax(-1)]
        return (x @ model.text_projection).float()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each pair of rows, float64 `[N]`."""
    return (F.normalize(first.double(), dim=-1) * F.normalize(second.double(), dim=-1)).sum(-1)


def _missing() -> Any:
    raise AssertionError("features are kept before they are read")
