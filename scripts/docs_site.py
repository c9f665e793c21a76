"""Hook of mkdocs: a link from docs/ to another file of the repository leads to a page made of that file.

So the pages read the same in the repository and in the site, and the site needs no address of a repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
INSIDE = "repository/"  # where pages of files outside docs/ stand in the site
IN_NAV = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".sh": "sh"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file that a page links to."""
    waiting = [*IN_NAV, *(_in_repository(file.src_uri) for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(File.generated(config, _in_site(path), content=_content(path)))
        linked = {_target(path, link) for link in _links(path)} - seen
        found = {target for target in linked if (ROOT / target).is_file()}  # mkdocs reports the others
        waiting += sorted(found)
        seen |= found
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn every relative link into one between pages of the site."""
    del config, files
    here = _in_repository(page.file.src_uri)
    if not here.endswith(".md"):
        return markdown
    start = posixpath.dirname(page.file.src_uri) or "."

    def rewritten(link: re.Match[str]) -> str:
        return f"]({posixpath.relpath(_in_site(_target(here, link[1])), start)}"

    return LINK.sub(rewritten, markdown)


def _links(path: str) -> list[str]:
    return LINK.findall((ROOT / path).read_text()) if path.endswith(".md") else []


def _target(path: str, link: str) -> str:
    """The file that a link in a file names, both as paths in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _in_site(path: str) -> str:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{INSIDE}{path}" if path.endswith(".md") else f"{INSIDE}{path}.md"


def _in_repository(uri: str) -> str:
    if not uri.startswith(INSIDE):
        return f"docs/{uri}"
    path = uri.removeprefix(INSIDE)
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def _content(path: str) -> str:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"
