"""A family's network among the tensors of its files: found complete, then translated to the decoder's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.tensor_names import (
    HARMLESS,
    Shape,
    describe_empty,
    describe_foreign,
    refuse_types,
)
from sar_eval.tensors.wrapped_names import common_prefix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class MatchedNetwork:
    """A family's network, found complete.

    Attributes:
        config: of the decoder.
        stored: our name of a tensor to its name in the files: those that have to be read.
        translate: makes the decoder's tensors of those with our names.
        where: the files, for messages.
    """

    config: DecoderConfig
    stored: Mapping[str, str]
    translate: Callable[[DecoderConfig, dict[str, Tensor]], dict[str, Tensor]]
    where: str

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the files by our names.

        Raises:
            BadInput: one is missing, or is no plain floating-point number.
        """
        if lost := [name for name in self.stored.values() if name not in tensors]:
            raise BadInput(f"{self.where}: the weights have no tensor {lost[0]!r}")
        refuse_types({name: str(tensors[name].dtype) for name in self.stored.values()}, self.where)
        return {ours: tensors[name] for ours, name in self.stored.items()}

    def weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `Decoder` takes, of tensors by their names in the files; others may be there.

        Raises:
            BadInput: see `own`.
        """
        return self.translate(self.config, self.own(tensors))


@dataclass(frozen=True, slots=True)
class Naming:
    """How a publisher names a network's tensors.

    Attributes:
        rules: regular expressions and replacements; of those that fit the start of one of our names, the
            first makes the publisher's name of it.
        unused: names of what drawing does not need, a regular expression.
    """

    rules: tuple[tuple[str, str], ...] = ()
    unused: str = r"(?!)"

    def renamed(self, name: str) -> str:
        """The publisher's name of one of our names."""
        for pattern, replacement in self.rules:
            if re.match(pattern, name):
                return re.sub(pattern, replacement, name, count=1)
        return name


def match_network(
    shapes: Mapping[str, Shape], expected: Mapping[str, Shape], namings: Iterable[Naming], where: str
) -> dict[str, str]:
    """Our names to the names in the files, whichever of the namings they follow and behind any wrapper.

    Args:
        shapes: of the tensors in the files.
        expected: our names and shapes.
        namings: of the publishers.
        where: the files, for messages.

    Raises:
        BadInput: a tensor is missing, empty, foreign or misshapen; the message names it as the files do.
    """
    prefix = common_prefix(shapes)
    found = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    naming = max(namings, key=lambda one: sum(one.renamed(name) in found for name in expected))
    names = {name: naming.renamed(name) for name in expected}
    if lost := [name for name in names.values() if name not in found]:
        more = f" (and {len(lost) - 1} more of the network)" if len(lost) > 1 else ""
        raise BadInput(f"{where}: the weights have no tensor {prefix + lost[0]!r}{more}")
    left = sorted(prefix + name for name in found.keys() - names.values() if not _needless(naming, name))
    if left:
        raise BadInput(
            f"{where}: {describe_foreign(left, 'no part of the network that was expected here')}"
        )
    if empty := [prefix + name for name in names.values() if math.prod(found[name]) == 0]:
        raise BadInput(f"{where}: {describe_empty(empty)}")
    for ours, name in names.items():
        if found[name] != expected[ours]:
            raise BadInput(
                f"{where}: tensor {prefix + name!r} is {found[name]}, and it has to be {expected[ours]}"
            )
    return {ours: prefix + name for ours, name in names.items()}


def _needless(naming: Naming, name: str) -> bool:
    return re.fullmatch(naming.unused, name) is not None or HARMLESS.fullmatch(name) is not None
