"""A real browser for the report's tests, and a server of files for those of downloads."""

from __future__ import annotations

import http.server
import threading
from dataclasses import dataclass, field

import pytest

from tests.browser import CHROMIUM, NO_BROWSER
from tests.e2e.download_server import Server, handler

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skipped test where it or playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page with everything it asked for and complained about."""

    page: object
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path, fragment=""):
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector(".card")
        return self.page


@pytest.fixture
def watched(browser):
    """A page that fails its test for a request beyond the disk, an error, a warning or a dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page())
    watched.page.on("request", lambda request: watched.requests.append(request.url))
    watched.page.on("console", lambda message: watched.complaints.append(message.text))
    watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    watched.page.on("dialog", lambda dialog: (watched.complaints.append(dialog.message), dialog.dismiss()))
    yield watched
    context.close()
    assert watched.complaints == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server()
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
    thread = threading.Thread(target=http_server.serve_forever, args=(0.02,))
    thread.start()
    server.address = f"http://127.0.0.1:{http_server.server_port}"
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAR_EVAL_MIRROR", server.address)
    for name in ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield server
    http_server.shutdown()
    thread.join()
    http_server.server_close()
