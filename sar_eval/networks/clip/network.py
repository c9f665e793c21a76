"""A CLIP network that scorers and GenEval's colour classifier share.

Each picture is encoded once for all who prepare it in the same way: its features are kept on the picture.
Features of texts are kept here, those of the latest `MAX_TEXTS`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.clip.architecture import build, check_activation, read_architecture
from sar_eval.networks.clip.source import ClipSource
from sar_eval.networks.clip.tokenizers import Tokens
from sar_eval.networks.clip.transforms import TRANSFORMS
from sar_eval.networks.clip.weights import read_state
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.types import Score

MAX_TEXTS = 4096  # kept features, 4 kB each
MAX_BATCH = 64  # pictures or texts of one forward pass; more gain nothing


class ClipNetwork:
    """Features of pictures and texts, and the cosine of a picture and its prompt."""

    def __init__(self, source: ClipSource) -> None:
        """Build the architecture and load the weights, in evaluation mode.

        Raises:
            BadInput: unknown architecture, the wrong activation, or weights that do not fit.
        """
        self.source, self.device = source, torch.device(source.device)
        self.dtype = getattr(torch, source.dtype)
        self.model = build(read_architecture(source.config), source.config)
        check_activation(self.model, source.config, source.published)
        self._load()
        self.image_size = int(self.model.visual.image_size[0])
        self._texts: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def _load(self) -> None:
        """Strictly, in the network's dtype.

        OpenAI's loader rounds matrices of float32 files to half precision first; all published ones are
        half already, so that changes nothing and is not done here.
        """
        state = read_state(self.source.path)
        if mismatch := describe_mismatch(state, self.model.state_dict()):
            raise BadInput(f"{self.source.path} does not fit the CLIP model: {mismatch}")
        self.logit_scale = float(state["logit_scale"].float().exp())
        placed = {name: tensor.to(self.device, self.dtype) for name, tensor in state.items()}
        self.model.load_state_dict(placed, strict=True, assign=True)
        self.model.to(self.device, self.dtype)  # the mask of the text tower

    def score_pairs(
        self,
        pictures: Sequence[Picture],
        prompts: Sequence[str],
        transform: str,
        tokenize: Callable[[str], Tokens],
    ) -> Iterator[Score]:
        """The cosine of each picture and its prompt, in order; `transform` is a name in `TRANSFORMS`."""
        tokens = [tokenize(prompt) for prompt in prompts]
        rows = self.image_rows(pictures, transform)
        for row, text, read in zip(rows, self.text_features(tokens), tokens, strict=True):
            if isinstance(row, str):
                yield Score(error=row)
            else:
                yield Score(cosine(row, text), truncated=read.truncated)

    def prepare(self, picture: Picture, transform: str) -> Tensor:
        """What enters the network: float32 `[3, size, size]`, made once for a picture.

        Raises:
            BadInput: the picture's shape makes that impossible.
        """
        size = self.image_size
        return picture.once(("pixels", transform, size), lambda: TRANSFORMS[transform](picture, size))

    def image_rows(self, pictures: Sequence[Picture], transform: str) -> list[Tensor | str]:
        """Features float32 `[D]` of each picture, not normalised, or why it has none.

        A picture is encoded once for a transform, whoever asks.
        """
        key = ("features", self.source.key, transform)
        errors: dict[Picture, str] = {}
        waiting: dict[Picture, Tensor] = {}
        for picture in dict.fromkeys(pictures):
            try:
                if not picture.has(key):
                    waiting[picture] = self.prepare(picture, transform)
            except BadInput as error:
                errors[picture] = str(error)
            if len(waiting) == MAX_BATCH:
                self._encode(waiting, key)
                waiting = {}
        self._encode(waiting, key)
        return [errors[p] if p in errors else p.once(key, _absent) for p in pictures]

    def _encode(self, prepared: dict[Picture, Tensor], key: tuple[object, ...]) -> None:
        """Keep the pictures' features on them."""
        if prepared:
            rows = self.encode_pixels(torch.stack(list(prepared.values()))).cpu()
            for picture, row in zip(prepared, rows, strict=True):
                picture.keep(key, row)

    def text_features(self, texts: Sequence[Tokens]) -> Tensor:
        """Float32 `[N, D]` on the CPU, not normalised; those of the latest texts are kept."""
        wanted = [text.ids for text in texts]
        if not wanted:
            return torch.empty(0, 0)
        missing = [ids for ids in dict.fromkeys(wanted) if ids not in self._texts]
        fresh: dict[tuple[int, ...], Tensor] = {}
        for start in range(0, len(missing), MAX_BATCH):
            batch = missing[start : start + MAX_BATCH]
            fresh |= zip(batch, self.encode_tokens(batch).cpu(), strict=True)
        known = {ids: self._texts[ids] for ids in wanted if ids not in fresh}
        for ids, features in (known | fresh).items():
            self._texts[ids] = features
            self._texts.move_to_end(ids)
        while len(self._texts) > MAX_TEXTS:
            self._texts.popitem(last=False)
        return torch.stack([fresh[ids] if ids in fresh else known[ids] for ids in wanted])

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Float32 `[N, D]` of prepared pictures `[N, 3, H, W]`, not normalised.

        By default cuDNN convolves float32 in TensorFloat-32, which keeps ten bits of each pixel.
        """
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features: Tensor = self.model.encode_image(pixels.to(self.device, self.dtype))
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
        features: Tensor = x @ model.text_projection
        return features.float()


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two vectors, in float64; 0 where one of them is zero."""
    return float(F.normalize(first.double(), dim=-1) @ F.normalize(second.double(), dim=-1))


def _absent() -> Tensor:
    raise AssertionError("features are kept before they are read")
