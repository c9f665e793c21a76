"""Guidance inside an unmodified vLLM: a logits processor for both of its model runners.

The older runner (batch rows, `update_state`) and the newer one (request slots, `add_request` and a context
for each step) require different interfaces, and vLLM decides which of them runs; so one class implements
both. `pairing.PairSampler` does the sampling.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as BatchProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as SlotProcessor

from sar_eval.vllm_guided.pairing import Branch, LogitsRow, PairSampler, TokenLayout
from sar_eval.vllm_guided.plugin import CONFIG_KEY


def branch_from_params(params: Any) -> Branch | None:
    """The branch in a request's sampling parameters, None if the request is not ours.

    Raises:
        ValueError: its data are invalid, or it uses a vLLM feature that the processor cannot support.
    """
    data = (params.extra_args or {}).get(CONFIG_KEY)
    if data is None:
        return None
    if params.temperature != 0:
        raise ValueError("a branch of an image needs vLLM's temperature 0: the processor samples")
    if getattr(params, "structured_outputs", None) is not None:
        raise ValueError("a branch of an image cannot have structured output")
    return Branch.from_dict(data)


class GuidanceLogitsProcessor(BatchProcessor, SlotProcessor):
    """Samples the visual token of an image from both of its rows and forces it on both."""

    def __init__(self, vllm_config: Any, device_or_states: Any, is_pin_memory: bool = False) -> None:
        """Create the sampler; called by either runner.

        Args:
            vllm_config: its `hf_config` contains the token layout.
            device_or_states: the older runner's device, or the newer runner's request states.
            is_pin_memory: of the older runner; not used.
        """
        del is_pin_memory
        self.states = device_or_states if hasattr(device_or_states, "prompt_len") else None
        device = device_or_states if self.states is None else self.states.device
        self.sampler = PairSampler(layout_from_config(vllm_config), device)
        self.batch: dict[int, tuple[Branch, list[int]]] = {}
        self.slots: dict[int, Branch] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Check a request's sampling parameters.

        Raises:
            ValueError: the request is ours and not valid.
        """
        branch_from_params(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """False: the processor decides the token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Older runner: rows were added, removed or moved."""

        def entry(
            params: Any, prompt: list[int] | None, output: list[int]
        ) -> tuple[Branch, list[int]] | None:
            del prompt
            branch = branch_from_params(params)
            return None if branch is None else (branch, output)

        process_dict_updates(self.batch, batch_update, entry)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Newer runner: a request was assigned to a slot; returns whether the request is ours."""
        branch = branch_from_params(sampling_params)
        self.slots.pop(req_idx, None)
        if branch is not None:
            self.slots[req_idx] = branch
        return branch is not None

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Either runner: sample and force the tokens."""
        self.sampler(logits, self._batch_rows() if ctx is None else self._slot_rows(ctx))
        return logits

    def _batch_rows(self) -> list[LogitsRow]:
        # vLLM appends to the output list, with a placeholder for a token that is not yet known.
        return [LogitsRow(index, branch, len(output)) for index, (branch, output) in self.batch.items()]

    def _slot_rows(self, ctx: Any) -> list[LogitsRow]:
        assert self.states is not None
        prompt_lengths = self.states.prompt_len.np
        slots = zip(ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist(), strict=False)
        return [
            LogitsRow(index, self.slots[slot], length - int(prompt_lengths[slot]))
            for index, (slot, length) in enumerate(slots)
            if slot in self.slots
        ]


def layout_from_config(vllm_config: Any) -> TokenLayout:
    """The token layout that the engine stored in the model's configuration."""
    stored = getattr(vllm_config.model_config.hf_config, CONFIG_KEY)
    return TokenLayout(**stored | {"forced_ids": tuple(stored.get("forced_ids", ()))})
