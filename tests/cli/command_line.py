"""What tests of the command line have in common."""

import subprocess
from collections.abc import Callable, Sequence

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, one error message with these words, no traceback."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    for word in words:
        assert word in done.stderr
