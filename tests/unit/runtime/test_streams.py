"""Standard output and error that cannot be written."""

import os
import subprocess
import sys

import pytest

CODE = r"""
import os, sys
from sar_eval.runtime.streams import lost_output, safe_streams
with safe_streams() as out:
    for _ in range(3):
        print("\u732b" * 9000, flush=True)
        sys.stderr.write("note\n")
    lost = lost_output(out)
os.write(3, repr(lost).encode())
"""


def _lost(redirected: str, **environment: str) -> str:
    """What the process says about its standard output."""
    reader, writer = os.pipe()
    command = f'exec 3>&{writer}; "$@" {redirected}'
    words = ["/bin/bash", "-c", command, "-", sys.executable, "-c", CODE]
    done = subprocess.run(
        words, pass_fds=[writer], check=False, capture_output=True, env={**os.environ, **environment}
    )
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    assert done.stderr.replace(b"note\n", b"") == b""
    return said


@pytest.mark.parametrize(
    ("redirected", "lost"),
    [
        (">/dev/null", "None"),
        (">/dev/full", "'No space left on device'"),
        (">/dev/full 2>/dev/full", "'No space left on device'"),
        ("| true", "None"),
        ("2>&1 | true", "None"),
        (">&- 2>&- <&-", "None"),
    ],
)
def test_writing_never_raises(redirected: str, lost: str) -> None:
    assert _lost(redirected) == lost


def test_characters_that_the_locale_lacks_are_escaped() -> None:
    assert _lost("| cat", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0") == "None"
