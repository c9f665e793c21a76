"""Which tensors of a file are a picture decoder's, and whether they fit; known from names and shapes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from sar_eval.errors import BadInput
from sar_eval.families.conv_decoder import GROUPS, DecoderShape
from sar_eval.families.tensor_names import Shape, refuse_types

CODEBOOK = "quantize.embedding.weight"
# What only encoding and training need.
_UNUSED = re.compile(r"(encoder|quant_conv)\..*|quantize\.codebook_used|.*\.num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Naming:
    """How a publisher names the decoder's tensors.

    Attributes:
        level: regular expression of what precedes a level's number.
        block: of what stands between the numbers of level and residual block.
        rules: regular expressions and replacements that, one after the other, make these names of ours.
        matrices: our names of those 1x1 convolutions' weights that are stored as matrices, a regular
            expression.
    """

    level: str
    block: str
    rules: tuple[tuple[str, str], ...] = ()
    matrices: str = r"(?!)"

    def renamed(self, name: str) -> str:
        """The publisher's name of one of our names."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """A family of picture decoders.

    Attributes:
        what: its name, for messages.
        namings: the ways in which its tensors are named.
        post_quant: the convolution before the decoder.
        build: makes the network of a shape; its tensors have our names.
    """

    what: str
    namings: tuple[Naming, ...]
    post_quant: str
    finest_first: bool
    build: Callable[[DecoderShape], nn.Module]


@dataclass(frozen=True, slots=True)
class MatchedDecoder:
    """A file's decoder, found complete.

    Attributes:
        kind: of the decoder.
        shape: read from the tensors.
        stored: our name of a tensor to its name in the file: those that have to be read.
        where: the file, for messages.
    """

    kind: DecoderKind
    shape: DecoderShape
    stored: Mapping[str, str]
    where: str

    def load(self, tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> nn.Module:
        """The network with its weights.

        Args:
            tensors: by their names in the file; others may be there.
            device: where it computes.
            dtype: in which it computes; weights are cast.

        Raises:
            BadInput: a tensor is missing, or is no plain floating-point number.
        """
        if lost := [name for name in self.stored.values() if name not in tensors]:
            raise BadInput(f"{self.where}: the weights have no tensor {lost[0]!r}")
        refuse_types({name: str(tensors[name].dtype) for name in self.stored.values()}, self.where)
        network, expected = _empty(self.kind, self.shape), _expected_shapes(self.kind, self.shape)
        state = {
            ours: tensors[name].to(device, dtype).reshape(expected[ours]).contiguous()
            for ours, name in self.stored.items()
        }
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval()

    def digest(self, tensors: Mapping[str, Tensor]) -> str:
        """SHA-256 over the decoder's tensors in float32, by our names, 16 hex digits.

        Args:
            tensors: by their names in the file; others may be there.
        """
        total = hashlib.sha256()
        for ours, name in sorted(self.stored.items()):
            total.update(ours.encode())
            total.update(tensors[name].float().contiguous().numpy().tobytes())
        return total.hexdigest()[:16]


def match_decoder(shapes: Mapping[str, Shape], kind: DecoderKind, where: str) -> MatchedDecoder:
    """Find the decoder's tensors in a file, behind any one prefix, and hold them against each other.

    No config of Janus or LlamaGen says how many levels and blocks there are, and how wide: the tensors do.

    Args:
        shapes: of all tensors of the file, or of those that may be the decoder's.
        kind: of the decoder.
        where: the file, for messages.

    Raises:
        BadInput: there is no decoder; a tensor of it is missing or misshapen; or one that is none of its
            own has its prefix. The message names it as the file does.
    """
    prefix, naming = _find_naming(shapes, kind, where)
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    shape = _read_shape(own, naming, kind, where)
    expected = {
        ours: size[:2] if re.fullmatch(naming.matrices, ours) else size
        for ours, size in _expected_shapes(kind, shape).items()
    }
    names = {ours: naming.renamed(ours) for ours in expected}
    _refuse_missing(own, names.values(), kind, where, prefix)
    _refuse_foreign(own, names.values(), kind, where, prefix)
    for ours, name in names.items():
        if own[name] != expected[ours]:
            raise BadInput(
                f"{where}: tensor {prefix + name!r} is {own[name]}, and beside the others it has to be "
                f"{expected[ours]}"
            )
    return MatchedDecoder(kind, shape, {ours: prefix + name for ours, name in names.items()}, where)


def _empty(kind: DecoderKind, shape: DecoderShape) -> nn.Module:
    """The network without values and without memory for them."""
    with torch.device("meta"):
        return kind.build(shape)


@lru_cache(maxsize=8)
def _expected_shapes(kind: DecoderKind, shape: DecoderShape) -> Mapping[str, Shape]:
    return {ours: tuple(tensor.shape) for ours, tensor in _empty(kind, shape).state_dict().items()}


def _find_naming(names: Iterable[str], kind: DecoderKind, where: str) -> tuple[str, Naming]:
    """The prefix that the decoder's names have in the file, and whose names they are."""
    for naming in kind.namings:
        pattern = re.compile(rf"(|.*?\.){naming.level}\d+\.{naming.block}\d+\.")
        if found := {match[1] for name in names if (match := pattern.match(name))}:
            return min(found, key=lambda prefix: (len(prefix), prefix)), naming
    raise BadInput(f"{where} has no tensors of {kind.what}")


def _refuse_missing(
    own: Iterable[str], names: Iterable[str], kind: DecoderKind, where: str, prefix: str
) -> None:
    there = set(own)
    if lost := [name for name in names if name not in there]:
        more = f" (and {len(lost) - 1} more of {kind.what})" if len(lost) > 1 else ""
        raise BadInput(f"{where}: the weights have no tensor {prefix + lost[0]!r}{more}")


def _refuse_foreign(
    own: Iterable[str], names: Iterable[str], kind: DecoderKind, where: str, prefix: str
) -> None:
    if foreign := sorted({name for name in own if not _UNUSED.fullmatch(name)} - set(names)):
        raise BadInput(
            f"{where}: {len(foreign)} tensors are no part of {kind.what} "
            f"({', '.join(prefix + name for name in foreign[:3])}{', ...' if len(foreign) > 3 else ''})"
        )


def _read_shape(own: Mapping[str, Shape], naming: Naming, kind: DecoderKind, where: str) -> DecoderShape:
    pattern = re.compile(rf"{naming.level}(\d+)\.{naming.block}(\d+)\..*")
    numbers = {name: (int(m[1]), int(m[2])) for name in own if (m := pattern.fullmatch(name))}
    levels = len({level for level, _ in numbers.values()})
    # The width that most of a level's tensors have: so the one that differs is named, whichever it is.
    by_level = [
        _most([own[n][:1] for n, (at, _) in numbers.items() if at == level]) for level in range(levels)
    ]
    widths = tuple(reversed(by_level) if kind.finest_first else by_level)
    if odd := [width for width in widths if width % GROUPS]:
        raise BadInput(
            f"{where}: {kind.what} has norms of {GROUPS} groups, and a level here has {odd[0]} channels"
        )
    blocks = max(len({n for at, n in numbers.values() if at == level}) for level, _ in numbers.values())
    weight, bias = (own.get(f"{kind.post_quant}.{part}", ()) for part in ("weight", "bias"))
    latent = _most([weight[:1], bias[:1], own.get("decoder.conv_in.weight", ())[1:2]])
    return DecoderShape(_most([own.get(CODEBOOK, ())[:1]]), latent, widths, blocks)


def _most(sizes: Iterable[Shape]) -> int:
    """The most frequent of the sizes that are there, else one that norms take: tensors are missed later."""
    found = Counter(size[0] for size in sizes if size and size[0])
    return found.most_common(1)[0][0] if found else GROUPS
