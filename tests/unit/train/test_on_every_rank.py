"""Work that every rank does: what one of them found, all have; where one fails, all do."""

from collections.abc import Callable
from typing import Any

import pytest

from sar_eval.errors import Incomplete
from sar_eval.train import ranks


@pytest.fixture
def in_two_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs work as two ranks do, one after the other: what each sends the other receives."""

    def run(*works: Callable[[], Any]) -> list[Any]:
        sent: list[Any] = []
        monkeypatch.setattr(ranks, "gather_object", lambda own: sent.extend(own) or own)
        for work in works:
            _end(lambda work=work: ranks.on_every_rank(work))
        monkeypatch.setattr(ranks, "gather_object", lambda own: sent)
        return [_end(lambda work=work: ranks.on_every_rank(work)) for work in works]

    return run


def _end(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - what it ends with is looked at
        return error


def _failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_all_have_what_each_found(in_two_ranks) -> None:
    assert in_two_ranks(lambda: 3, lambda: None) == [[3, None], [3, None]]


@pytest.mark.parametrize(
    ("text", "told"), [("no room\nat all", "no room"), ("\n \nno room", "no room"), ("", "KeyError")]
)
def test_where_one_fails_all_do(in_two_ranks, text, told) -> None:
    own = KeyError() if not text else RuntimeError(text)
    first, second = in_two_ranks(lambda: 3, _failing(own))
    assert second is own
    assert isinstance(first, Incomplete)
    assert str(first) == f"rank 1 failed: {told}"
