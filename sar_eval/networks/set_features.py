"""The feature vectors that distances between sets are computed on, each with its own transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks import dinov2
from sar_eval.networks.clip.network import ClipNetwork
from sar_eval.networks.clip.source import ClipSource, Published, refuse_others
from sar_eval.networks.clip_pixels import MEAN, STD
from sar_eval.networks.inception import resize
from sar_eval.networks.inception.weights import load_inception
from sar_eval.networks.shared import acquire, release
from sar_eval.tensors.digests import file_digest

INCEPTIONS = ("inception-clean", "inception-fid")  # the same numbers in two forms
CLIP_336 = Published(("clip-l14-336",), "ViT-L-14-336-quickgelu", quick_gelu=True)


def check_device(name: str) -> None:
    """Raise BadInput unless torch can use the device of this name."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"--device {name}: torch cannot use it: {why}") from error


class FeatureNetwork(ABC):
    """A network with its transform. Made without loading anything; `with` loads it.

    Attributes:
        version: the transform and a digest of the weights: all that decides the features.
    """

    version: str

    def __init__(self, key: Hashable, device: str) -> None:
        self.key, self.device = key, torch.device(device)
        self.network: Any = None

    @abstractmethod
    def _load(self) -> Any:
        """The network, on its device."""

    @abstractmethod
    def prepare(self, picture: Picture) -> Tensor:
        """What enters the network: float32 `[3, H, W]`; safe in several threads at once."""

    def __enter__(self) -> Self:
        self.network = acquire(self.key, self._load)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network = None
        release(self.key)

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Features `[N, D]`; float32 throughout, on a GPU too (no TF32)."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features: Tensor = self._features(torch.stack(list(prepared)).to(self.device))
        return np.asarray(features.float().cpu().numpy())

    def _features(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)  # type: ignore[no-any-return]


class InceptionFeatures(FeatureNetwork):
    """Inception's pooled features `[2048]` under one of the ways to resize; all share the network."""

    RESIZES: dict[str, Callable[[Any], Tensor]] = {  # noqa: RUF012
        "clean": resize.clean,
        "torch": resize.torch_bilinear,
        "tf": resize.tensorflow_bilinear,
    }

    def __init__(self, weights: Path, device: str, *, form: str) -> None:
        """Hash the weights, NVIDIA's TorchScript file or pytorch-fid's tensors.

        Raises:
            BadInput: no such file, or one that is published as something else.
        """
        self.weights, self.resize = _existing(weights, "Inception"), self.RESIZES[form]
        digest = file_digest(self.weights)
        refuse_others(self.weights, digest, INCEPTIONS)
        super().__init__(("inception", digest, device), device)
        self.version = f"resize-{form}+{digest[:8]}"

    def _load(self) -> Any:
        return load_inception(self.weights).to(self.device)

    def prepare(self, picture: Picture) -> Tensor:
        """299 x 299, about -1 to 1."""
        return self.resize(picture.rgb)


class ClipFeatures(FeatureNetwork):
    """CLIP's unit vectors of pictures, in the way of CMMD's authors."""

    def __init__(self, weights: Path, device: str) -> None:
        """Hash the weights: OpenAI's archive, or a folder of transformers with its config.json.

        Raises:
            BadInput: no such file or folder.
        """
        config = str(weights / "config.json") if weights.is_dir() else ""
        self.source = ClipSource(CLIP_336, weights, config, device=device)
        super().__init__(self.source.key, device)
        self.version = f"crop-resize+{self.source.version}"

    def _load(self) -> Any:
        return ClipNetwork(self.source)

    def prepare(self, picture: Picture) -> Tensor:
        """The middle square, then Pillow's bicubic filter: crop first, unlike CLIP's own transform."""
        image, size = picture.rgb, self.network.image_size
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.crop((left, top, left + side, top + side))
        return dinov2.normalized(square, size, MEAN, STD)

    def _features(self, pixels: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.network.encode_pixels(pixels), dim=-1)


class DinoFeatures(FeatureNetwork):
    """DINOv2's class tokens, in the way of dgm-eval."""

    def __init__(self, weights: Path, device: str) -> None:
        """Hash the weights in a folder of transformers.

        Raises:
            BadInput: no such folder, or it has no config.json or no model.safetensors.
        """
        self.folder = weights
        files = (_existing(weights / name, "DINOv2") for name in ("model.safetensors", "config.json"))
        digests = [file_digest(file) for file in files]
        refuse_others(weights / "model.safetensors", digests[0], ("dinov2-l14",))
        super().__init__(("dinov2", *digests, device), device)
        self.version = f"squash+{digests[0][:8]}+{digests[1][:8]}"

    def _load(self) -> Any:
        return dinov2.Dinov2(self.folder).to(self.device)

    def prepare(self, picture: Picture) -> Tensor:
        """Squashed to 224 x 224."""
        return dinov2.prepare(picture.rgb)


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise BadInput(f"no {what} weights: {path} is no file")
    return path
