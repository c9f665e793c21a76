"""What all pages share: templates that escape, our styles and scripts, a policy against any others."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sar_eval import __version__
from sar_eval.report.page_data import PageData

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    values: dict[str, object],
    data: PageData | None = None,
) -> str:
    """The page's HTML; whatever text is in `values` is escaped.

    Args:
        template, styles, scripts: names of files in `templates/`.
        values: what the template shows.
        data: for the scripts, embedded in the page or complete in files beside it; None if they need none.
    """
    style, script = _joined(styles), _joined(scripts)
    beside = data is not None and data.beside
    page = _environment().get_template(template)
    return page.render(
        values,
        beside=beside,
        data=Markup(data.embedded() if data else ""),  # noqa: S704 - escaped by `page_data.encode`
        style=Markup(style),  # noqa: S704 - our own files, not a user's text
        script=Markup(script),  # noqa: S704
        policies=_policies(script, style, beside),
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _joined(names: Sequence[str]) -> str:
    return "".join((TEMPLATES / name).read_text("utf-8") for name in names)


def _policies(script: str, style: str, beside: bool) -> list[str]:
    """Content Security Policies: a page must satisfy each of them.

    Scripts are this page's own. Where its data is beside it, that script may add script elements, which
    markup in the page may not (`strict-dynamic`), and only with files from beside the page.
    """
    own = f"script-src '{_csp_hash(script)}'"
    rest = f"default-src 'none'; img-src 'self' file: data:; style-src '{_csp_hash(style)}'; "
    rest += "base-uri 'none'; form-action 'none'; "
    return [f"{rest}{own} 'strict-dynamic'", f"{own} 'self' file:"] if beside else [rest + own]


@cache
def _environment() -> Environment:
    """Of the templates: everything in a page is escaped, and nothing may be undefined."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _csp_hash(text: str) -> str:
    """The Content-Security-Policy source that allows exactly this inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
