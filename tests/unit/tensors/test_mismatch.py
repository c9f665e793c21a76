"""What is said of a file's tensors that do not fit a network."""

import pytest
import torch
from safetensors.torch import save_file

from sar_eval.errors import BadInput
from sar_eval.tensors.mismatch import describe_mismatch

EXPECTED = {"a.weight": torch.ones(2, 3, device="meta"), "a.steps": torch.zeros((), dtype=torch.int64)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_real_numbers_of_any_precision_fit(dtype: torch.dtype) -> None:
    state = {"a.weight": torch.ones(2, 3, dtype=dtype), "a.steps": torch.zeros((), dtype=dtype)}
    assert describe_mismatch(state, EXPECTED) == ""


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64])
def test_a_quantised_network_is_another_one(dtype: torch.dtype) -> None:
    state = {"a.weight": torch.ones(2, 3, dtype=dtype), "a.steps": torch.zeros((), dtype=torch.int64)}
    kind = str(dtype).removeprefix("torch.")
    assert f"a.weight is {kind}, the model's is float32" in describe_mismatch(state, EXPECTED)


def test_a_quantised_head_is_refused(tmp_path) -> None:
    from sar_eval.networks.clip.aesthetic_heads import AestheticHead

    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.ones(1, 8, dtype=torch.int8), "bias": torch.ones(1)}, path)
    with pytest.raises(BadInput, match="quantised head"):
        AestheticHead("v1", path)
