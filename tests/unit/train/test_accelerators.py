"""Trainings of one process do not depend on their order."""

import pytest

from sar_eval.train.accelerators import new_accelerator


@pytest.mark.parametrize("precisions", [("bf16", "no"), ("no", "bf16"), ("no", "no")])
def test_a_process_may_train_in_several_precisions(precisions: tuple[str, str]) -> None:
    assert [new_accelerator(each, cpu=True).mixed_precision for each in precisions] == list(precisions)
