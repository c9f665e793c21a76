"""The browser that the report's tests need, and what is said of them where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Collection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_BROWSER = "no chromium, chromium-browser or google-chrome"
INSTALL = "sudo apt-get install chromium"


def skipped_note(reasons: Collection[str]) -> str:
    """The last line of a test run in which tests were skipped for want of a browser; "" if none were."""
    number = sum(NO_BROWSER in reason for reason in reasons)
    if number == 0:
        return ""
    return f"{number} tests of the report were skipped, as there is no Chromium: {INSTALL}"
