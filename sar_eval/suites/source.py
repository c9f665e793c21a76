"""Suites of others: their official files, how these become prompts, and the texts that are cut out of them.

`suites/NAME/source.py` with a `SOURCE` is all that `prompts fetch NAME`, `prompts import NAME` and a recipe
with `suite = "NAME.jsonl"` need. It is imported when its suite is asked for, and not before.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval import suites
from sar_eval.documents import read_bytes
from sar_eval.errors import BadInput
from sar_eval.tensors.published_weights import cache_folder
from sar_eval.tensors.remote_file import RemoteFile
from sar_eval.types import Prompt


@dataclass(frozen=True, slots=True)
class ImportedSuite:
    """The imported prompts in official order, and notes on inconsistencies, each with file and line.

    `counted` says what else is in them, for the last line: `with 3 questions`.
    """

    prompts: Sequence[Prompt]
    notes: tuple[str, ...] = ()
    counted: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A text of a repository without a licence for it: cut out of a fetched file, never in our source.

    Attributes:
        name: recipes call it `SUITE/NAME`.
        file: the official file that holds it, as below the folder of the official files.
        sha256: of the text in UTF-8; the text in `file` with this checksum is the template.
        holes: in an f-string or a sum of strings, expressions by the name of the hole that they become:
            `{"prompt_data['Prompt']": "prompt"}` makes `{prompt}`, before the checksum is taken.
        markers: what stands for a hole in the text itself, replaced after the checksum is taken.
    """

    name: str
    file: str
    sha256: str
    holes: Mapping[str, str] = field(default_factory=dict)
    markers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SuiteSource:
    """Where a suite comes from.

    Attributes:
        title: what it is, for messages: `DPG-Bench`.
        licence: as its publisher states it, or that there is none.
        files: the official files (see `official`).
        convert: makes prompts of the folder with these files, or of the file if there is one alone;
            raises BadInput with file and line.
        takes: what `prompts import --from` takes, in words.
        prompts: how many the official suite has; 0 if that varies.
        templates: texts for the judge that are stored beside the suite.
    """

    title: str
    licence: str
    files: tuple[RemoteFile, ...]
    convert: Callable[[Path], ImportedSuite]
    takes: str
    prompts: int = 0
    templates: tuple[Template, ...] = ()


def official(
    suite: str, url: str, purpose: str, *, sha256: str = "", name: str = "", size: int = 0
) -> RemoteFile:
    """An official file of a suite; `name` is its path below the official folder, else the address's end."""
    name = name or url.rpartition("/")[2]
    return RemoteFile(f"sources/{suite}/{name}", url, sha256, purpose, size, exact=True)


def names() -> list[str]:
    """Suites that can be fetched and imported, nothing imported."""
    found = (path for folder in suites.__path__ for path in Path(folder).glob("*/source.py"))
    return sorted({path.parent.name for path in found})


def load(name: str) -> SuiteSource:
    """The source of a suite.

    Raises:
        BadInput: there is none of that name.
    """
    if name not in names():
        raise BadInput(f"no importer for suite {name!r}: {', '.join(names())}")
    source: SuiteSource = importlib.import_module(f"sar_eval.suites.{name}.source").SOURCE
    return source


def fetched(source: SuiteSource, name: str) -> Path:
    """Where the downloaded official files lie: their folder, or the file if there is one alone."""
    if len(source.files) == 1:
        return cache_folder() / source.files[0].name
    return cache_folder() / "sources" / name


def official_file(source: Path, name: str) -> Path:
    """The official file of that name in the folder that was given, or what was given if it is a file.

    Raises:
        BadInput: it is not there.
    """
    path = source / name if source.is_dir() else source
    if not path.is_file():
        raise BadInput(f"no {path}: give the folder with the official {name}")
    return path


def to_lines(prompts: Sequence[Prompt]) -> bytes:
    """The contents of a suite file (JSONL) with these prompts."""
    return "".join(json.dumps(_row(prompt)) + "\n" for prompt in prompts).encode()


def _row(prompt: Prompt) -> dict[str, object]:
    row = {"id": prompt.id, "text": prompt.text, "tag": prompt.tag, "checks": prompt.checks}
    row["split"] = prompt.split
    return {key: value for key, value in row.items() if value not in (None, "")}


def template_path(suite: str, template: str) -> Path:
    """Where a template lies in the cache."""
    return cache_folder() / "templates" / suite / f"{template}.txt"


def read_template(name: str) -> str:
    """The text of the template `SUITE/NAME`, its checksum checked, with its holes as `{prompt}` and so on.

    Raises:
        BadInput: no suite or template is called so, it was not fetched, or somebody changed it.
    """
    suite, _, part = name.partition("/")
    known = {template.name: template for template in load(suite).templates}
    if part not in known:
        raise BadInput(f"suite {suite!r} has no template {part!r}: {', '.join(known) or 'it has none'}")
    template, path = known[part], template_path(suite, part)
    if not path.is_file():
        raise BadInput(f"no {path}: `sar-eval prompts fetch {suite}` downloads it with the suite")
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != template.sha256:
        raise BadInput(f"{path} is not the official text: remove it, and `sar-eval prompts fetch {suite}`")
    text = data.decode()
    for marker, hole in template.markers.items():
        text = text.replace(marker, f"{{{hole}}}")
    return text
