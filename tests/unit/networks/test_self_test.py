"""The doctor's detector self-test on tiny weights."""

import pytest

pytest.importorskip("transformers", reason="needs the extra geneval")
from sar_eval.networks.mask2former.self_test import Comparison, compare_devices
from sar_eval.stages import doctor


def test_the_cpu_agrees_with_itself(tiny_detector) -> None:
    assert compare_devices(tiny_detector, "cpu") == Comparison(0.0, 0.0)
    assert compare_devices(tiny_detector, "cpu").ok


def test_a_device_with_lower_precision_is_detected(tiny_detector) -> None:
    """bfloat16 stands for a card that degrades results."""
    comparison = compare_devices(tiny_detector, "cpu", "bfloat16")
    assert comparison.classes > 0
    assert not comparison.ok


def test_infinite_differences_are_not_ok() -> None:
    assert not Comparison(float("inf"), 0.0).ok


@pytest.mark.parametrize(
    ("devices", "cached", "ok", "word"),
    [
        ([], True, None, "no GPU"),
        (["cuda"], False, None, "sar-eval fetch geneval"),
        (["cuda"], True, True, "agrees with the CPU"),
    ],
)
def test_the_doctors_finding(devices, cached, ok, word, tiny_detector, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    if cached:
        monkeypatch.setattr(doctor, "find_weights", lambda name: tiny_detector)
    finding = doctor.detector_self_test(devices, device="cpu")
    assert finding.ok is ok
    assert word in finding.detail
