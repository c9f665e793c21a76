"""What others may read of settings and facts: recipes, cards, `sar_eval.json`, pages, and trackers."""

from __future__ import annotations

from sar_eval.types import Json

LOCAL = ("/", "~", "file://")  # begins a path of this machine; others are beside something, or of a store


def published(value: Json) -> Json:
    """A value, or all those in tables and lists, with the last part of each path of this machine."""
    if isinstance(value, dict):
        return {name: published(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [published(inner) for inner in value]
    if isinstance(value, str) and value.startswith(LOCAL):
        return value.rstrip("/").rpartition("/")[2] or value
    return value
