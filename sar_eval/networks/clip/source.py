"""Which CLIP: the published networks, and where the weights of one lie. Needs no torch."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.published_weights import find_weights, which_published

# Files of a folder that hold the weights, the safest first.
FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class Published:
    """A published network.

    Attributes:
        names: of its weights in `tensors.published_weights`: the file that is fetched, then others that
            hold the same numbers.
        architecture: a name in open_clip.
        quick_gelu: whether it was trained with QuickGELU; the same tensors fit a network without.
    """

    names: tuple[str, ...]
    architecture: str
    quick_gelu: bool


OPENAI_B32 = Published(("clip-b32",), "ViT-B-32-quickgelu", quick_gelu=True)
OPENAI_L14 = Published(("clip", "clip-hf-l14"), "ViT-L-14-quickgelu", quick_gelu=True)
HF_L14 = Published(("clip-hf-l14", "clip"), "ViT-L-14-quickgelu", quick_gelu=True)
LAION_H14 = Published(("clip-h14",), "ViT-H-14", quick_gelu=False)
HPS_V20 = Published(("hps-v2.0",), "ViT-H-14", quick_gelu=False)
HPS_V21 = Published(("hps-v2.1",), "ViT-H-14", quick_gelu=False)
PICKSCORE = Published(("pickscore",), "ViT-H-14", quick_gelu=False)


@dataclass(frozen=True)
class ClipSource:
    """Where a network comes from and how it computes.

    Attributes:
        published: what it is.
        weights: a file or a folder; "" for the fetched one.
        config: its architecture, as `read_architecture` takes it; "" becomes the published one.
        device, dtype: of the network.
        path: the file of the weights.
        digest: its SHA-256.
    """

    published: Published
    weights: str | Path = ""
    config: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Find and hash the weights.

        Raises:
            BadInput: no such weights or configuration, or the weights are another network's.
        """
        path = weight_file(Path(self.weights) if self.weights else find_weights(self.published.names[0]))
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "config", self.config or self.published.architecture)
        object.__setattr__(self, "digest", file_digest(path))
        if self.config.endswith(".json") and not Path(self.config).is_file():
            raise BadInput(f"no CLIP configuration {self.config}")
        refuse_others(path, self.digest, self.published.names)

    @property
    def version(self) -> str:
        """Digests of all that decides what the network computes, for a scorer's version."""
        parts = [self.digest[:8]]
        if self.config.endswith(".json"):
            parts.append(file_digest(Path(self.config))[:8])
        elif self.config != self.published.architecture:
            parts.append(self.config)
        return "+".join(parts if self.dtype == "float32" else [*parts, self.dtype])

    @property
    def key(self) -> Hashable:
        """Sources with equal keys are one network."""
        config = file_digest(Path(self.config)) if self.config.endswith(".json") else self.config
        return ("clip", self.digest, config, self.published.quick_gelu, self.device, self.dtype)


def refuse_others(path: Path, digest: str, names: tuple[str, ...]) -> None:
    """Refuse a file that is published as something else: HPS v2.0's tensors fit in v2.1's place.

    Args:
        path: of the file.
        digest: its SHA-256.
        names: of the weights that are meant.

    Raises:
        BadInput: its checksum is that of other weights.
    """
    found = which_published(path, digest)
    if found is not None and found not in names:
        raise BadInput(
            f"{path} holds the weights {found!r}, but {names[0]!r} are needed: "
            f"`sar-eval fetch scorers {names[0]}` gets them"
        )


def weight_file(path: Path) -> Path:
    """The file of weights: the path itself, or the one in this folder.

    Raises:
        BadInput: there is none.
    """
    if path.is_file():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    why = f": the folder has none of {', '.join(FILES)}" if path.is_dir() else ""
    raise BadInput(f"no CLIP weights {path}{why}")
