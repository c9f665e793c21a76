"""A scored run as trackers take it, and a watch over the network."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from sar_eval.images.files import encode_png
from sar_eval.tracked_runs import TrackedPicture, TrackedRun, TrackedTraining
from tests.unit.trackers.network import refuse

HOSTILE = "# <script>alert(1)</script>\n[a](javascript:b) of a star"
FIGURES = {
    "shapes/overall": 0.75,
    "shapes/overall_low": 0.7,
    "shapes/overall_high": 0.8,
    "shapes/overall_n": 48.0,
    "shapes/detail/entity - whole": 0.5,
}


def shade(level: int) -> np.ndarray:
    """A small picture of one colour."""
    return np.full((8, 12, 3), level, np.uint8)


@pytest.fixture
def tracked(tmp_path) -> TrackedRun:
    """Two pictures, five figures, a report with a folder beside it."""
    assets = tmp_path / "run" / "report_assets"
    assets.mkdir(parents=True)
    (assets / "index.js").write_text("1")
    report = assets.parent / "report.html"
    report.write_text("<p>the report</p>")
    pictures = (
        TrackedPicture("a-1/0", "counting", HOSTILE, encode_png(shade(10)), 0.0, False, "one is missing"),
        TrackedPicture("b-2/1", "", "a star", encode_png(shade(200)), 0.25, None, ""),
    )
    config = {"checkpoint": "step-2000", "protocol": {"guidance": 2.0, "prefix": ""}, "versions": {}}
    return TrackedRun(
        "my project", "sft", "shapes", 2000, config, FIGURES, iter(pictures), (report, assets)
    )


@pytest.fixture
def followed() -> TrackedTraining:
    """A training that goes on after its second step."""
    return TrackedTraining("my project", "grpo", 2, {"grpo": {"steps": 4}, "recipe": HOSTILE})


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond this machine end the test."""
    monkeypatch.setattr(socket.socket, "connect", refuse)
