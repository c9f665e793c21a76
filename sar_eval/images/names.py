"""Finds the prompt and the number in the names of image files."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.images.listing import name_first, shown
from sar_eval.images.numbers import Match
from sar_eval.types import Prompt, safe_id

PATTERN = "<prompt id>_<index>.png, <prompt id>/<index>.png, or <prompt id>.png where there is one"
# A name and its number, and the same with a word between them; the first that gives a known name counts.
SPLITS = (
    re.compile(r"(.+)[_/-](\d{1,18})", re.DOTALL),
    re.compile(
        r"(.+?)(?:/samples)?[_/-](?:(?:seed|sample|image|img)[_-]?)?(\d{1,18})", re.DOTALL | re.IGNORECASE
    ),
)
RUNNING = re.compile(r"(?:(?:sample|image|img)[_-]?)?(\d{1,18})", re.IGNORECASE)
NUMBER_AND_TEXT = re.compile(r"(\d{1,18})[_ -]+(.+)", re.DOTALL)
NUMBER_FIRST = re.compile(r"(?:(?:seed|sample|image|img)[_-]?)?(\d{1,18})/(.+)", re.DOTALL | re.IGNORECASE)
ZEROS = "ids are written without their leading zeros"
CUT_OFF = 20  # letters that the cut-off text of a prompt must keep to be recognised
Named = tuple[Prompt, int | None]
Rule = Callable[[str], Named | None]


@dataclass(slots=True)
class NamedFiles:
    """Files by their names.

    Attributes:
        matches: those with a prompt.
        unmatched: those without.
        is_numbered: whether names have a number for every image of a prompt.
        notes: how names were read, where it is not the plain form.
    """

    matches: list[Match] = field(default_factory=list)
    unmatched: list[Path] = field(default_factory=list)
    is_numbered: bool = True
    notes: list[str] = field(default_factory=list)


def match_names(
    folder: Path, paths: Sequence[Path], prompts: Sequence[Prompt], each: int, *, running: bool = False
) -> NamedFiles:
    """Match files by one rule for all of them: the first of several that fits all, else most.

    Args:
        folder: that the paths lie in.
        paths: of images.
        prompts: of the suite.
        each: images of a prompt.
        running: names are running numbers over the whole suite.

    Raises:
        BadInput: names that can be read in two ways, or (`running`) are no running numbers.
    """
    known = KnownPrompts(prompts)
    stems = {path: _composed(shown(path.relative_to(folder).with_suffix("").as_posix())) for path in paths}
    if running:
        return _by_running_number(folder, stems, prompts, each)
    found = _by_numbers_first(folder, stems, known, each, _by_best_rule(stems, known))
    if not found.matches:
        found = _without_folders(stems, known) or found
    stems = stems if found.matches else _bare(stems)  # folders of GPUs may hold running numbers
    if found.unmatched and (numbers := _running_numbers(stems.values())) is not None:
        if len(numbers) == len(prompts) * each and not _meets_ids(stems.values(), known):
            return _by_running_number(folder, stems, prompts, each)
        raise _is_it_numbered(folder, numbers, len(prompts), each, known)
    return found


class KnownPrompts:
    """The prompts by id, by an id's number, and by text without signs."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = prompts
        self.by_id = {prompt.id: prompt for prompt in prompts}

    @cached_property
    def by_number(self) -> Mapping[object, Prompt]:
        """Prompts whose ids are numbers, by these."""
        return _unique((int(p.id), p) for p in self.prompts if p.id.isascii() and p.id.isdecimal())

    @cached_property
    def by_text(self) -> Mapping[object, Prompt]:
        """Prompts by their texts, without those that differ in signs alone."""
        return _unique((_plain(prompt.text), prompt) for prompt in self.prompts)

    @cached_property
    def texts(self) -> list[str]:
        """All texts in order, to find those that begin alike."""
        return sorted(_plain(prompt.text) for prompt in self.prompts)

    def rules(self) -> list[tuple[Rule, str]]:
        """Rules from a name to prompt and number, the plainest first, and what is said of them."""
        finders = (
            (self.with_id, ""),
            (self.with_number, ZEROS),
            (self.with_text, "files are named by the texts of their prompts"),
        )
        rules = [rule for find, note in finders for rule in ((_whole(find), note), (_split(find), note))]
        return [
            *rules,
            (self.with_number_and_text, "files are named by the ids and texts of prompts"),
            (_whole(self.with_folder), ""),
        ]

    def with_number_and_text(self, stem: str) -> Named | None:
        """By an id and the text of its prompt, maybe with an image's number after them."""
        if (parts := NUMBER_AND_TEXT.fullmatch(stem)) is None:
            return None
        for rule in (_whole(self.with_text), _split(self.with_text)):
            found = rule(parts[2])
            if found and found[0] in (self.with_id(parts[1]), self.with_number(parts[1])):
                return found
        return None

    def with_id(self, name: str) -> Prompt | None:
        """By the id, or by what it was before it was made safe as a file name."""
        return self.by_id.get(name) or self.by_id.get(safe_id(name))

    def with_folder(self, name: str) -> Prompt | None:
        """By an id that begins with the folder's name: `anime/00012` of HPSv2 is `anime-00012`."""
        return self.by_id.get(name.replace("/", "-"))

    def with_number(self, name: str) -> Prompt | None:
        """By the number that the id is, however it is written."""
        return self.by_number.get(int(name)) if RUNNING.fullmatch(name) and name.isdecimal() else None

    def with_text(self, name: str) -> Prompt | None:
        """By the whole text, or by its beginning where that is of one prompt only."""
        plain = _plain(name)
        if plain in self.by_text or len(plain) < CUT_OFF:
            return self.by_text.get(plain)
        at = bisect_left(self.texts, plain)
        fits = [text for text in self.texts[at : at + 2] if text.startswith(plain)]
        return self.by_text.get(fits[0]) if len(fits) == 1 else None


def _unique(pairs: Iterable[tuple[object, Prompt]]) -> dict[object, Prompt]:
    """A dict without the keys that come twice."""
    table: dict[object, Prompt] = {}
    twice = set()
    for key, prompt in pairs:
        if table.setdefault(key, prompt) is not prompt:
            twice.add(key)
    return {key: prompt for key, prompt in table.items() if key not in twice}


def _plain(text: str) -> str:
    """Letters and digits only: other characters are replaced in file names in many ways."""
    return re.sub(r"[\W_]+", " ", _composed(text)).strip().casefold()


def _composed(text: str) -> str:
    """With accents as parts of their letters: a Mac takes them apart in file names."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _bare(stems: dict[Path, str]) -> dict[Path, str]:
    return {path: stem.rpartition("/")[2] for path, stem in stems.items()}


def _whole(find: Callable[[str], Prompt | None]) -> Rule:
    def rule(stem: str) -> Named | None:
        prompt = find(stem)
        return None if prompt is None else (prompt, None)

    return rule


def _split(find: Callable[[str], Prompt | None]) -> Rule:
    def rule(stem: str) -> Named | None:
        for pattern in SPLITS:
            if (parts := pattern.fullmatch(stem)) and (prompt := find(parts[1])):
                return prompt, int(parts[2])
        return None

    return rule


def _by_best_rule(stems: dict[Path, str], known: KnownPrompts) -> NamedFiles:
    """By the first rule that fits all, else by the one that fits most (of two, the one with numbers)."""
    best = NamedFiles(unmatched=list(stems), is_numbered=False)
    for rule, note in known.rules():
        named = {path: rule(stem) for path, stem in stems.items()}
        matches = [Match(n[0], n[1] or 0, path) for path, n in named.items() if n is not None]
        is_numbered = any(n is not None and n[1] is not None for n in named.values())
        if matches and (len(matches), is_numbered) > (len(best.matches), best.is_numbered):
            unmatched = [path for path, n in named.items() if n is None]
            best = NamedFiles(matches, unmatched, is_numbered, [note] if note else [])
        if not best.unmatched:
            break
    return best


def _by_numbers_first(
    folder: Path, stems: dict[Path, str], known: KnownPrompts, each: int, found: NamedFiles
) -> NamedFiles:
    """Where folders are numbers or seeds and the files in them ids, unless `found` fits better.

    Raises:
        BadInput: folders and files fit either way.
    """
    if not found.unmatched and found.notes != [ZEROS]:
        return found
    parts = {path: NUMBER_FIRST.fullmatch(stem) for path, stem in stems.items()}
    matches = [
        Match(prompt, int(part[1]), path)
        for path, part in parts.items()
        if part and (prompt := known.with_id(part[2]) or known.with_text(part[2]))
    ]
    most = max(Counter(match.prompt.id for match in matches).values(), default=0)
    if len(matches) < len(stems) or not 1 < most <= each:
        return found
    other = NamedFiles(matches, notes=["folders are the numbers of the images, files are named by prompts"])
    if found.unmatched or max(Counter(match.prompt.id for match in found.matches).values()) > each:
        return other
    raise BadInput(
        f"{shown(folder)}: files such as {shown(matches[0].path.relative_to(folder))} may be "
        "<prompt id>/<index> or <index>/<prompt id>: write a manifest.jsonl, or name folders seed_0, ..."
    )


def _without_folders(stems: dict[Path, str], known: KnownPrompts) -> NamedFiles | None:
    """By the names alone, if that fits all: files may lie in folders of GPUs, categories or `samples`."""
    for parts in (2, 1):
        found = _by_best_rule({p: "/".join(stem.split("/")[-parts:]) for p, stem in stems.items()}, known)
        if found.matches and not found.unmatched:
            found.notes.append("files are matched by their names alone: the folders above them are ignored")
            return found
    return None


def _running_numbers(stems: Iterable[str]) -> list[int] | None:
    """The numbers of files that are named by nothing else, if there are no two and no gaps; sorted."""
    found = [RUNNING.fullmatch(stem) for stem in stems]
    numbers = sorted(int(match[1]) for match in found if match)
    whole = bool(numbers) and len(numbers) == len(found) and numbers[0] in (0, 1)
    return numbers if whole and numbers == list(range(numbers[0], numbers[0] + len(numbers))) else None


def _meets_ids(stems: Iterable[str], known: KnownPrompts) -> bool:
    return any(stem in known.by_id or (stem.isdecimal() and int(stem) in known.by_number) for stem in stems)


def _by_running_number(
    folder: Path, stems: dict[Path, str], prompts: Sequence[Prompt], each: int
) -> NamedFiles:
    """The files in the order of their numbers show the prompts in the order of the suite."""
    stems = _bare(stems)
    numbers, expected = _running_numbers(stems.values()), len(prompts) * each
    if numbers is None or len(numbers) != expected:
        seen = "have other names or gaps" if numbers is None else f"are {numbers[0]} to {numbers[-1]}"
        raise BadInput(
            f"{folder}: running numbers must be those of {len(prompts)} prompts x {each} = {expected} "
            f"images, from 0 or 1 without a gap, but the files {seen}: write a manifest.jsonl"
        )
    first, matches = numbers[0], []
    for path, stem in stems.items():
        number = int(re.sub(r"\D", "", stem)) - first
        matches.append(Match(prompts[number // each], number % each, path))
    note = (
        f"files are numbered {first} to {numbers[-1]} over the whole folder: taken in the suite's order, "
        f"{each} a prompt"
    )
    return NamedFiles(matches, notes=[note])


def _is_it_numbered(
    folder: Path, numbers: list[int], prompts: int, each: int, known: KnownPrompts
) -> BadInput:
    """What to do about files that are named by numbers, of which not all are ids."""
    count = f"{folder}: {len(numbers)} files are named {numbers[0]} to {numbers[-1]}, and {prompts} prompts"
    if len(numbers) == prompts * each:
        return BadInput(
            f"{count} x {each} images are expected, but some of these names are ids of prompts too: "
            f"if they count the images in the suite's order, {each} a prompt, say --numbered"
        )
    ids = f"ids are such as {next(iter(known.by_id))!r}"
    return BadInput(
        f"{count} x {each} = {prompts * each} images are expected ({ids}): set --images-per-prompt, "
        "or write a manifest.jsonl"
    )


def name_error(folder: Path, unmatched: list[Path], prompts: Sequence[Prompt], is_numbered: bool) -> str:
    """What is wrong with the names of files that match no draw, and the ways on."""
    ids = {prompt.id for prompt in prompts}
    unindexed = [p for p in unmatched if p.relative_to(folder).with_suffix("").as_posix() in ids]
    if unindexed and is_numbered:
        return (
            f"{name_first(unindexed)} without an index, where other files have one: "
            "name all files in the same way"
        )
    return (
        f"{name_first(unmatched)} names no prompt of this suite: expected {PATTERN}; "
        "or move what is not to be judged away; `sar-eval manifest DIR` writes a manifest.jsonl to edit"
    )
