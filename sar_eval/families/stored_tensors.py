"""The tensors in the weight files of a folder, and a family's network among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.families.tensor_names import Shape, refuse_types
from sar_eval.families.weight_files import WeightFiles, need_weight_files, read_headers
from sar_eval.tensors.safetensors_header import TensorEntry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Match = Callable[[Mapping[str, Shape], str], MatchedNetwork]  # of shapes by name, and where they are


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a folder, under the names that they have there.

    Safetensors files are known by their headers. Torch files have none: what is asked of their tensors
    loads them.
    """

    folder: Path

    @cached_property
    def files(self) -> WeightFiles:
        """The safetensors files, or the torch files if there are none.

        Raises:
            BadInput: see `need_weight_files`.
        """
        return need_weight_files(self.folder)

    @cached_property
    def headers(self) -> Mapping[str, tuple[Path, TensorEntry]] | None:
        """File and entry of each tensor; None for torch files.

        Raises:
            BadInput: see `read_headers`.
        """
        return read_headers(self.files, self.folder)

    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor; torch files are mapped into memory for it."""
        if self.headers is None:
            return tensor_shapes(self.read())
        return {name: entry.shape for name, (_, entry) in self.headers.items()}

    def read(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Tensors by name, those of `names` that are there, or all; torch files map them into memory.

        Raises:
            BadInput: a file is unreadable.
        """
        from sar_eval.tensors.weight_files import read_tensors

        wanted = None if names is None else set(names)
        found: dict[str, Tensor] = {}
        for path in self.files.paths:
            own: Iterable[str] | None = self.files.named_in(path)
            if self.headers is not None:
                own = [name for name, (file, _) in self.headers.items() if file == path]
            tensors = read_tensors(path, own if wanted is None or own is None else wanted.intersection(own))
            found |= {n: tensor for n, tensor in tensors.items() if wanted is None or n in wanted}
        return found

    def digest(self, stored: Mapping[str, str]) -> str:
        """SHA-256 over tensors in float32, 16 hex digits.

        Args:
            stored: names that do not depend on the files' form, to names in the files.
        """
        tensors, total = self.read(stored.values()), hashlib.sha256()
        for ours, name in sorted(stored.items()):
            total.update(ours.encode())
            total.update(tensors[name].float().contiguous().numpy().tobytes())
        return total.hexdigest()[:16]

    def match_headers(self, match: Match) -> MatchedNetwork | None:
        """The network by its tensors' headers; None for torch files, which must be loaded.

        Raises:
            BadInput: the tensors are not those of the network, or no plain floating-point numbers.
        """
        if self.headers is None:
            return None
        found = match(self.shapes(), str(self.folder))
        types = {name: self.headers[name][1].dtype for name in found.stored.values()}
        refuse_types(types, str(self.folder))
        return found

    def read_network(
        self, found: MatchedNetwork | None, match: Match, device: str, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The decoder's tensors: those of the network, cast, then translated.

        Args:
            found: of `match_headers`.
            match: finds the network in torch files.
            device: where the tensors are put.
            dtype: to which they are cast.

        Raises:
            BadInput: a file is unreadable, or the tensors are not those of the network.
        """
        matched, own = self.read_untranslated(found, match, device, dtype)
        return matched.translate(matched.config, own)

    def read_untranslated(
        self, found: MatchedNetwork | None, match: Match, device: str, dtype: torch.dtype
    ) -> tuple[MatchedNetwork, dict[str, Tensor]]:
        """The network, and its tensors by our names, cast; see `read_network`."""
        stored = self.read(None if found is None else found.stored.values())
        matched = found or match(tensor_shapes(stored), str(self.folder))
        own = {name: tensor.to(device, dtype) for name, tensor in matched.own(stored).items()}
        return matched, own


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shape of each of the tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
