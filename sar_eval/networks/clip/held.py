"""A scorer's hold on a CLIP network, which it shares with all that use the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sar_eval.networks.clip.source import ClipSource
from sar_eval.networks.shared import acquire, release

if TYPE_CHECKING:
    from sar_eval.networks.clip.network import ClipNetwork


class HeldClip:
    """Loads the network on enter, unless somebody in this process has it; the last to exit frees it."""

    def __init__(self, source: ClipSource) -> None:
        """Load nothing yet."""
        self.source = source

    def __enter__(self) -> ClipNetwork:
        """Hold the network.

        Raises:
            BadInput: unknown architecture, the wrong activation, or weights that do not fit.
        """
        from sar_eval.networks.clip.network import ClipNetwork

        return acquire(self.source.key, lambda: ClipNetwork(self.source))

    def __exit__(self, *error: object) -> None:
        release(self.source.key)
