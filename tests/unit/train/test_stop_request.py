"""Ctrl-C of a training: the first asks, the second ends; a launcher's echo of it is no second one."""

import os
import signal
from collections.abc import Iterator

import pytest

from sar_eval.train import stop_request
from sar_eval.train.stop_request import StopRequest


@pytest.fixture(autouse=True)
def as_an_exception() -> Iterator[None]:
    """Outside of a request, SIGTERM raises as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_signal_asks_and_the_second_one_ends() -> None:
    with StopRequest() as request:
        _terminate()
        assert request.requested
        with pytest.raises(KeyboardInterrupt):
            _terminate()


def test_what_a_launcher_repeats_at_once_is_the_same_signal(monkeypatch) -> None:
    monkeypatch.setenv(stop_request.LAUNCHER, "1")
    with StopRequest() as request:
        _terminate()
        _terminate()
        assert request.requested
        monkeypatch.setattr(stop_request, "ECHO_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            _terminate()
