"""The tensors in the weight files of a folder, and a family's network among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.families.tensor_names import Shape, refuse_types
from sar_eval.families.weight_files import WeightFiles, need_weight_files, read_headers
from sar_eval.tensors.header import Entry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Match = Callable[[Mapping[str, Shape], str], MatchedNetwork]  # of shapes by name, and where they are


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a folder, under the names that they have there, known by the files' headers."""

    folder: Path

    @cached_property
    def files(self) -> WeightFiles:
        """The safetensors files, or the torch files if there are none.

        Raises:
            BadInput: see `need_weight_files`.
        """
        return need_weight_files(self.folder)

    @cached_property
    def headers(self) -> Mapping[str, tuple[Path, Entry]]:
        """File and entry of each tensor.

        Raises:
            BadInput: see `read_headers`.
        """
        return read_headers(self.files, self.folder)

    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor."""
        return {name: entry.shape for name, (_, entry) in self.headers.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of `names` that are there; torch files map them into memory.

        Raises:
            BadInput: a file is unreadable.
        """
        from sar_eval.tensors.weight_files import read_tensors

        wanted = set(names)
        found: dict[str, Tensor] = {}
        for path in self.files.paths:
            own = [name for name, (file, _) in self.headers.items() if file == path]
            found |= read_tensors(path, wanted.intersection(own))
        return found

    def match(self, match: Match) -> MatchedNetwork:
        """The network among them.

        Raises:
            BadInput: the tensors are not those of the network, or no plain floating-point numbers.
        """
        found = match(self.shapes(), str(self.folder))
        types = {name: self.headers[name][1].dtype for name in found.stored.values()}
        refuse_types(types, str(self.folder))
        return found

    def read_network(self, network: MatchedNetwork, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """The decoder's tensors: those of the network of `match`, cast, then translated.

        Raises:
            BadInput: a file is unreadable.
        """
        return network.translate(network.config, self.read_untranslated(network, device, dtype))

    def read_untranslated(
        self, network: MatchedNetwork, device: str, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The network's tensors by our names, cast; see `read_network`."""
        stored = network.own(self.read(network.stored.values()))
        return {name: tensor.to(device, dtype) for name, tensor in stored.items()}


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shape of each of the tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
