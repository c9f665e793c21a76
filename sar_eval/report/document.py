"""What all pages share: templates that escape, and policies that keep a page to its own scripts."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """Of the templates: everything in a page is escaped, and nothing may be undefined."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def policies(script: str, style: str, beside: bool) -> list[str]:
    """Content Security Policies: a page must satisfy each of them.

    Scripts are this page's own. Where its data is beside it, that script may add script elements, which
    markup in the page may not (`strict-dynamic`), and only with files from beside the page.
    """
    own = f"script-src '{_csp_hash(script)}'"
    rest = f"default-src 'none'; img-src 'self' file: data:; style-src '{_csp_hash(style)}'; "
    rest += "base-uri 'none'; form-action 'none'; "
    return [f"{rest}{own} 'strict-dynamic'", f"{own} 'self' file:"] if beside else [rest + own]


def _csp_hash(text: str) -> str:
    """The Content-Security-Policy source that allows exactly this inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
