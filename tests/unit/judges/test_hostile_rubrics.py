"""Recipes of the judge `rubric` that would hang or crash it."""

import re
import threading
import time

import pytest

from sar_eval.errors import BadInput
from sar_eval.judges.rubric import RubricJudge
from sar_eval.suites.rubric.readers import UnreadReply, read_numbers
from sar_eval.suites.rubric.time_limit import time_limit

USUAL = {
    "url": "http://127.0.0.1:9/v1",
    "model": "x",
    "numbers": {"score": r"(\d+)"},
    "score": "score",
}


@pytest.mark.parametrize("pattern", [r"(a|a)*b", r"(?:a|aa)+$", r"(.*)(.*)(.*)(.*)(.*)x"])
def test_a_pattern_that_takes_for_ever_is_an_error_of_the_reply(pattern: str) -> None:
    start = time.monotonic()
    with pytest.raises(UnreadReply, match="takes too long"), time_limit(0.1):
        read_numbers("a" * 19_000 + "!", {"score": re.compile(pattern)})
    assert time.monotonic() - start < 2
    time.sleep(0.15)  # no alarm is left


def test_usual_patterns_are_read_in_any_thread() -> None:
    found = []

    def read() -> None:
        with time_limit(5):
            found.append(read_numbers("Score: 7", {"score": re.compile(r"(\d+)")}))

    read()
    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [{"score": 7.0}] * 2


@pytest.mark.parametrize("option", ["template_file", "system_file"])
@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b", "no such file", "\ud800"])
def test_texts_of_impossible_names(option: str, name: str) -> None:
    texts = {"template": "{prompt}"} if option == "system_file" else {}
    with pytest.raises(BadInput, match=option):
        RubricJudge(**USUAL, **texts, **{option: name})
