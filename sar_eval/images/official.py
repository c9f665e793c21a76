"""GenEval's official layout, `00000/metadata.jsonl` and `00000/samples/0000.png`, by its metadata."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.images.listing import Listing, is_clutter, name_first, shown
from sar_eval.images.numbers import Match
from sar_eval.types import Json, Prompt

PATTERN = "00000/metadata.jsonl and 00000/samples/*.png"
METADATA = "metadata.jsonl"
NUMBER = re.compile(r"(?:(?:seed|sample|image|img)[_-]?)?(\d{1,18})", re.IGNORECASE)
MAX_METADATA = 1_000_000  # bytes; official ones have 200


def find_official(folder: Path) -> Path | None:
    """The folder whose folders have metadata: this one, or the only one up to two below; None without.

    Raises:
        BadInput: there are several below.
    """
    for pattern in ("*", "*/*", "*/*/*"):
        paths = (path.relative_to(folder) for path in folder.glob(f"{pattern}/{METADATA}"))
        found = {folder / path.parent.parent for path in paths if not any(map(is_clutter, path.parts))}
        if len(found) > 1:
            raise BadInput(f"{folder} has {len(found)} folders of images: name one, as {shown(min(found))}")
        if found:
            return found.pop()
    return None


def match_metadata(listing: Listing, prompts: Sequence[Prompt], notes: list[str]) -> Iterator[Match]:
    """By each folder's metadata; the folders' numbers matter only where it fits several prompts.

    Raises:
        BadInput: unreadable metadata, metadata of no prompt of this suite, or a sample without a number.
    """
    samples: dict[Path, list[Path]] = defaultdict(list)
    direct: dict[Path, list[Path]] = defaultdict(list)
    for path in listing.images:
        if path.parent.name.lower() == "samples":
            samples[path.parent.parent].append(path)
        elif NUMBER.fullmatch(path.stem) and (path.parent / METADATA).is_file():
            direct[path.parent].append(path)
    samples = {**direct, **samples}  # beside the metadata only where there are no samples
    known, rewritten = _Known(prompts), 0
    for metadata in sorted(listing.folder.glob(f"*/{METADATA}")):
        prompt, is_rewritten = known.find(metadata)
        rewritten += is_rewritten
        yield from _numbered(prompt, samples.pop(metadata.parent, []))
    if rewritten:
        notes.append(
            f"{rewritten} prompts were rewritten: their folders are matched by `tag` and `include`"
        )
    if samples:
        left = sorted(samples)
        notes.append(
            f"{len(left)} folders without {METADATA} are left out: {name_first(left, listing.folder)}"
        )


class _Known:
    """The prompts by their metadata, by their texts, and by what is to be seen."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.position = {prompt.id: number for number, prompt in enumerate(prompts)}
        self.by_metadata: dict[str, list[Prompt]] = defaultdict(list)
        self.by_text: dict[str, list[Prompt]] = defaultdict(list)
        self.by_objects: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in prompts:
            self.by_text[prompt.text].append(prompt)
            if prompt.checks is not None:
                self.by_metadata[_canonical(prompt.checks)].append(prompt)
            if isinstance(prompt.checks, dict) and "include" in prompt.checks:
                self.by_objects[_objects(prompt.checks)].append(prompt)

    def find(self, path: Path) -> tuple[Prompt, bool]:
        """The prompt of a file of metadata, and whether its text is another one than the suite's."""
        metadata = _read(path)
        text = str(metadata.get("prompt"))
        found = self.by_metadata.get(_canonical(metadata)) or self.by_text.get(text)
        is_rewritten = not found
        if not found and "include" in metadata:
            found = self.by_objects.get(_objects(metadata))
        if not found:
            raise BadInput(f"{shown(path)} belongs to no prompt of this suite: {metadata.get('prompt')!r}")
        return self._by_folder(found, path) if len(found) > 1 else found[0], is_rewritten

    def _by_folder(self, found: list[Prompt], path: Path) -> Prompt:
        """The one of several prompts whose id is the folder's name, or whose place in the suite is."""
        name = path.parent.name
        number = int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else -1
        for prompt in found:
            if prompt.id == name or self.position[prompt.id] == number:
                return prompt
        listed = ", ".join(prompt.id for prompt in found[:5])
        raise BadInput(f"{shown(path)} fits {len(found)} prompts ({listed}): write a manifest.jsonl")


def _read(path: Path) -> dict[str, Any]:
    metadata = read_json(path, MAX_METADATA)
    if not isinstance(metadata, dict):
        raise BadInput(f"{shown(path)} is no JSON object but {shorten(metadata)}")
    return metadata


def _canonical(data: Json) -> str:
    return json.dumps(data, sort_keys=True)


def _objects(metadata: dict[str, Any]) -> str:
    """What is to be seen, without the prompt's text and whatever others added."""
    return _canonical([metadata.get(key) or None for key in ("tag", "include", "exclude")])


def _numbered(prompt: Prompt, paths: list[Path]) -> Iterator[Match]:
    for path in paths:
        if (number := NUMBER.fullmatch(path.stem)) is None:
            raise BadInput(f"{shown(path)}: a sample's name must be a number")
        yield Match(prompt, int(number[1]), path)
