"""Guidance inside an unmodified vLLM: a logits processor for both of its model runners.

The older runner (batch rows, `update_state`) and the newer one (request slots, `add_request` and a context
for each step) want different interfaces, and which of them runs is decided inside vLLM; so one class has
both. The sampling is `pairing.PairSampler`'s.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as BatchProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SlotProcessor

from sar_eval.vllm_guided.pairing import Branch, Layout, PairSampler, Row

ARGUMENT = "sar_eval"  # the key of ours in a request's `extra_args` and in the model's configuration


def branch_of(params: Any) -> Branch | None:
    """The branch that a request is, None for a request of somebody else.

    Raises:
        ValueError: it claims to be one and is not, or asks vLLM for more than the processor can honour.
    """
    told = (params.extra_args or {}).get(ARGUMENT)
    if told is None:
        return None
    if params.temperature != 0:
        raise ValueError("a branch of an image needs vLLM's temperature 0: the processor samples")
    if getattr(params, "structured_outputs", None) is not None:
        raise ValueError("a branch of an image cannot have structured output")
    return Branch.from_args(told)


class GuidedPairs(BatchProcessor, SlotProcessor):
    """Samples the visual token of both rows of an image and forces it on them."""

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool = False) -> None:
        """As either runner calls it.

        Args:
            vllm_config: its `hf_config` says how ids are laid out.
            place: the older runner's device, or the newer runner's request states, which know theirs.
            is_pin_memory: of the older runner; not used.
        """
        del is_pin_memory
        self.states = place if hasattr(place, "prompt_len") else None
        device = place if self.states is None else place.device
        self.sampler = PairSampler(layout_of(vllm_config), device)
        self.batch: dict[int, tuple[Branch, list[int]]] = {}
        self.slots: dict[int, Branch] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request that could not be honoured.

        Raises:
            ValueError: naming what does not fit.
        """
        branch_of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """No: it decides the token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Older runner: rows came, left or moved."""

        def entry(
            params: Any, prompt: list[int] | None, output: list[int]
        ) -> tuple[Branch, list[int]] | None:
            del prompt
            branch = branch_of(params)
            return None if branch is None else (branch, output)

        process_dict_updates(self.batch, batch_update, entry)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Newer runner: a request takes a slot; whether it is ours."""
        branch = branch_of(sampling_params)
        self.slots.pop(req_idx, None)
        if branch is not None:
            self.slots[req_idx] = branch
        return branch is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Either runner: sample and force."""
        self.sampler(logits, self._batch_rows() if ctx is None else self._slot_rows(ctx))
        return logits

    def _batch_rows(self) -> list[Row]:
        # vLLM appends to the list that it gave, with a placeholder where the token is still on its way.
        return [Row(place, branch, len(output)) for place, (branch, output) in self.batch.items()]

    def _slot_rows(self, ctx: Any) -> list[Row]:
        assert self.states is not None
        prompts = self.states.prompt_len.np
        seen = zip(ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist(), strict=False)
        return [
            Row(place, self.slots[slot], length - int(prompts[slot]))
            for place, (slot, length) in enumerate(seen)
            if slot in self.slots
        ]


def layout_of(vllm_config: Any) -> Layout:
    """The layout that the engine put in the model's configuration."""
    return Layout(**getattr(vllm_config.model_config.hf_config, ARGUMENT))
