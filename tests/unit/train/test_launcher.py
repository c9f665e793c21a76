"""What a launcher may ask for."""

import pytest

from sar_eval.errors import BadInput
from sar_eval.train.launcher import check_sharding


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "the first version of FSDP"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "the first version of FSDP"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, ""),
        ({}, ""),
    ],
)
def test_what_is_not_supported_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], what: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if what:
        with pytest.raises(BadInput, match=f"asks for {what}, .*accelerate-fsdp2"):
            check_sharding()
    else:
        check_sharding()
