"""The card of a set: a README.md from which the Hugging Face hub and `datasets` know how to read it.

Its header follows https://huggingface.co/docs/hub/datasets-cards and datasets-manual-configuration. Names
and texts of the spec are untrusted: in the text they stand as code, in the header as quoted YAML.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from sar_eval.documents import convert, parse_json
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_reader import REMOVED, SetReader
from sar_eval.synthesis.card_header import card_header
from sar_eval.synthesis.spec import SetSpec
from sar_eval.synthesis.summary import SetSummary, summarise

README, FUNNEL, WORDS = "README.md", "funnel.json", "card.json"
NOT_STATED = "not stated"
_LOADING = """```python
from datasets import load_dataset

pictures = load_dataset("ORG/NAME", split="train")  # or the folder of a copy
```
"""
_TARS = """```python
import webdataset

pictures = webdataset.WebDataset(paths_of_tars, shardshuffle=False).decode("pil")
```
"""
_TOKENS = """`tokens` are visual codes in raster order; `sar-eval train sft --data` reads the set so.
"""
_REMOVED = """Rows that `dedup/*.parquet` lists (`row`, `index`) repeat earlier ones. `sar-eval train`
leaves them out; for other readers `sar-eval synth repack` makes a set without them.
"""
_DRAWS = """`manifest/*.parquet` (the configuration `manifest`) has a row for every draw, kept or not,
with all verdicts. Any picture can be drawn again: `sar-eval draw SET ROW/INDEX`.
"""


@dataclass(frozen=True, slots=True)
class CardWords:
    """What nobody but the set's maker can say; stored beside the set, so that a new card has it again.

    Attributes:
        title: of the card.
        licence: of the set, as the hub spells it ("apache-2.0", "cc-by-4.0").
        checkpoint_licence, prompts_licence: of what it was made with.
    """

    title: str = ""
    licence: str = ""
    checkpoint_licence: str = ""
    prompts_licence: str = ""


def write_card(
    store: ObjectStore, words: CardWords = CardWords(), summary: SetSummary | None = None
) -> str:
    """Write `README.md` and `funnel.json` of a set, and return the card.

    Words that are not given are those of an earlier card. Who has the set's summary gives it: making one
    reads all records.

    Raises:
        BadInput: there is no set, or its spec or a record is broken.
        StorageFailed: they cannot be written.
    """
    reader = SetReader(store)
    earlier = earlier_words(store)
    words = CardWords(*(getattr(words, f.name) or getattr(earlier, f.name) for f in fields(CardWords)))
    summary = summary or summarise(reader)
    card = render_card(reader, summary, words)
    if words != CardWords():
        store.write(WORDS, _json(asdict(words)))
    store.write(FUNNEL, _json(summary.to_json()))
    store.write(README, card.encode())
    return card


def earlier_words(store: ObjectStore) -> CardWords:
    """What an earlier card of the set was given.

    Raises:
        BadInput: it is broken.
    """
    if not store.exists(WORDS):
        return CardWords()
    where = f"{store.uri}, {WORDS}"
    return convert(parse_json(store.read(WORDS), where), CardWords, where)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def render_card(reader: SetReader, summary: SetSummary, words: CardWords) -> str:
    """The card as Markdown with its YAML header."""
    summary = replace(summary, spec=summary.spec.without_paths())
    spec = summary.spec
    title = _one_line(words.title or f"Pictures of {spec.run.checkpoint}")
    parts = [
        card_header(reader, summary, title, _one_line(words.licence)),
        f"# {_plain(title)}\n",
        _opening(summary),
        _figures(summary),
        _funnel(summary),
        _reading(reader, spec),
        _making(summary, words),
    ]
    return "\n".join(parts)


def _opening(summary: SetSummary) -> str:
    spec, figures = summary.spec, summary.figures
    return (
        f"{figures.kept - figures.removed:,} pictures that the checkpoint {code(spec.run.checkpoint)} drew "
        f"of {figures.prompts:,} prompts, {spec.best_of} of each, made by "
        "[sar-eval](https://pypi.org/project/sar-eval/). All of it is machine-made: no picture is a "
        "photograph, and captions are the prompts, not descriptions.\n"
    )


def _figures(summary: SetSummary) -> str:
    figures, spec = summary.figures, summary.spec
    rows = [
        ("Prompts", f"{figures.prompts:,} of {spec.prompts.rows:,}"),
        ("Pictures drawn", f"{figures.draws:,}"),
        ("Pictures kept", f"{figures.kept:,}"),
        *([("Removed as duplicates since", f"{figures.removed:,}")] if figures.removed else []),
        ("Data", f"{figures.data_bytes:,} bytes in {figures.objects:,} objects"),
        ("Kept of a picture", {"both": "pixels and tokens"}.get(spec.keep, spec.keep)),
        *([("Drawn on", ", ".join(map(code, figures.devices)))] if any(figures.devices) else []),
    ]
    return _table(("", ""), rows)


def _funnel(summary: SetSummary) -> str:
    rows = [
        (code(s.name), f"{s.draws:,}", f"{s.share:.2%}", f"{s.low:.2%} to {s.high:.2%}")
        for s in summary.funnel
    ]
    return "## Where the draws went\n\n" + _table(("", "draws", "share", "95 % interval"), rows)


def _reading(reader: SetReader, spec: SetSpec) -> str:
    parts = [_LOADING]
    if reader.layout == "webdataset":
        parts.append(_TARS)
    if spec.keep != "pixels":
        parts.append(_TOKENS)
    if any(True for _ in reader.store.list(REMOVED)):
        parts.append(_REMOVED)
    if not reader.repacked:
        parts.append(_DRAWS)
    return "\n".join(["## Reading it\n", *parts])


def _making(summary: SetSummary, words: CardWords) -> str:
    spec = summary.spec
    run, prompts = spec.run, spec.prompts
    drawn_from = f"{code(_last(run.suite))}, digest {code(prompts.digest)}, {prompts.rows:,} rows"
    measures = [
        (f"Measure {code(m.name)}", f"{m.kind}, version {code(m.version)}") for m in spec.selection.measures
    ]
    rows = [
        ("Checkpoint", f"{code(run.checkpoint)}, weights {code(run.checkpoint_digest)}"),
        ("Its licence", _plain(words.checkpoint_licence or NOT_STATED)),
        ("Prompts", drawn_from),
        ("Their licence", _plain(words.prompts_licence or NOT_STATED)),
        ("Licence of this set", _plain(words.licence or NOT_STATED)),
        ("Engine", f"{code(run.engine)} {_plain(run.engine_version)}, {code(run.dtype)}"),
        ("Sampling", code(json.dumps(run.protocol.to_json(), sort_keys=True))),
        *measures,
        ("Digest of the spec", code(spec.digest)),
    ]
    return "## How it was made\n\n" + _table(("", ""), rows) + f"\n    {command_of(spec)}\n"


def command_of(spec: SetSpec) -> str:
    """The command that makes the set; places are left out, and so are options of engine and measures."""
    chosen = spec.selection
    words = ["sar-eval", "synth", _last(spec.run.suite), "--ckpt", spec.run.checkpoint]
    words += ["--seed", str(spec.run.seed), "--best-of", str(spec.best_of)]
    words += ["--filter", chosen.filter] if chosen.filter else []
    words += ["--rank", chosen.rank] if chosen.rank else []
    words += ["--top", str(chosen.top)] if chosen.top else []
    words += [
        "--duplicates",
        chosen.duplicates,
        "--layout",
        spec.layout,
        "--keep",
        spec.keep,
        "--block-prompts",
        str(spec.block_prompts),
    ]
    words += ["--embed", spec.embed.partition(":")[0]] if spec.embed else []
    return " ".join(shlex.quote(_one_line(word)) for word in [*words, "--out", "SET"])


def _last(path: str) -> str:
    """The file's own name: where it lay is nobody's business."""
    return path.rstrip("/").rpartition("/")[2]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: str) -> str:
    """Untrusted text as code, in a table or elsewhere."""
    return f"`{_one_line(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`" if text else ""


def _plain(text: str) -> str:
    """Untrusted text without what Markdown and HTML take for more than text."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#|~&" else c for c in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
