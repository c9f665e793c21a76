"""A checkpoint's README.md: the header that the hub reads, and what made the checkpoint for who reads.

The header follows https://huggingface.co/docs/hub/model-cards. Names and texts come from outside: in the
header they stand as quoted YAML, in the text escaped. Of local paths only the last part is shown: a card is
made to be published.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import yaml  # type: ignore[import-untyped]

from sar_eval.documents import cut
from sar_eval.report.markdown import escape
from sar_eval.tensors.hub import HUB_NAME
from sar_eval.train.published import published
from sar_eval.types import Json

README = "README.md"
TAGS = ("sar-eval", "autoregressive", "image-generation")
_DATASET = re.compile(r"hf://datasets/(\w[\w.-]*/\w[\w.-]*)", re.ASCII)
_CHECKPOINT = """```bash
pip install 'sar-eval[hf]'
sar-eval run geneval --ckpt {name}
```

The weights are a Qwen2 decoder in transformers' format (`AutoModelForCausalLM` loads them): the text
tokenizer's ids, then one id for each visual code. Pictures follow `<|t2i|>`, the prompt and `<|soi|>`.
"""
_ADAPTER = """It is an adapter of LoRA and draws when it is merged with its base:

```bash
pip install 'sar-eval[train]'
sar-eval ckpt merge {name} --out MERGED
sar-eval run geneval --ckpt MERGED
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says.

    Attributes:
        name: of the folder, the title where none is given.
        sizes: height and width in pixels of the pictures that it was trained on.
        parameters: numbers in the files.
        codes: of the visual tokenizer.
        adapter: whether it is an adapter that is not merged.
        training: what made it. Of `start`, the name under "init" or "checkpoint" is the base model; `card`
            may have `title`, `licence` (as the hub spells it) and `description`; `data` a list of places.
    """

    name: str
    sizes: Collection[tuple[int, int]]
    parameters: int
    codes: int
    adapter: bool = False
    training: Mapping[str, Json] = field(default_factory=dict)


def render_card(facts: CardFacts) -> str:
    """The whole card."""
    words = _table(facts.training.get("card"))
    title = _text(words.get("title")) or cut(facts.name)
    lines = [f"# {escape(title)}", "", *_described(words), _summary(facts), ""]
    lines += [(_ADAPTER if facts.adapter else _CHECKPOINT).format(name="ORG/NAME"), *_training(facts)]
    return _header(facts, words) + "\n".join(lines).rstrip() + "\n"


def _header(facts: CardFacts, words: Mapping[str, Json]) -> str:
    base, datasets = base_model(facts.training), list(_datasets(facts.training))
    licence = _text(words.get("licence"))
    relation = "adapter" if facts.adapter else "finetune"
    header: dict[str, Json] = {
        **({"license": licence} if licence else {}),
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-to-image",
        "tags": [*TAGS, *(["lora"] if facts.adapter else [])],
        **({"base_model": base, "base_model_relation": relation} if base else {}),
        **({"datasets": [*datasets]} if datasets else {}),
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=100)}---\n\n"


def base_model(training: Mapping[str, Json]) -> str:
    """The hub's name of what the training began with, without its commit; "" where it is not on the hub."""
    start = _table(training.get("start"))
    name = _text(start.get("init")) or _text(start.get("checkpoint"))
    match = HUB_NAME.fullmatch(name)
    return match[1] if match else ""


def _datasets(training: Mapping[str, Json]) -> Iterator[str]:
    """Datasets of the hub among the data."""
    for _, value in _flat("", training.get("data")):
        if match := _DATASET.match(value):
            yield match[1]


def _described(words: Mapping[str, Json]) -> Iterator[str]:
    if description := _text(words.get("description")):
        yield from (escape(description), "")


def _summary(facts: CardFacts) -> str:
    what = "An adapter of an" if facts.adapter else "An"
    sizes = ", ".join(f"{width} x {height}" for height, width in sorted(facts.sizes)[:12])
    more = f" and {len(facts.sizes) - 12} more sizes" if len(facts.sizes) > 12 else ""
    return (
        f"{what} autoregressive text-to-image decoder: {facts.parameters:,} parameters, {facts.codes:,} "
        f"visual codes, trained on pictures of {sizes}{more} pixels with sar-eval."
    )


def _training(facts: CardFacts) -> Iterator[str]:
    rows = [(name, value) for name, value in _flat("", dict(facts.training)) if _stands(name)]
    if rows:
        yield from ("## Training", "", "| | |", "|---|---|")
        yield from (f"| {escape(name)} | {escape(cut(published(value), 300))} |" for name, value in rows)
        yield ""
    tested = facts.training.get("test_prompts")
    if isinstance(tested, int) and tested > 0:
        yield f"It was trained on {tested} prompts of a test suite: its scores there mean little."


def _stands(name: str) -> bool:
    return name.partition(".")[0] not in ("card", "test_prompts")


def _flat(name: str, value: Json) -> Iterator[tuple[str, str]]:
    """Names with dots and texts of all that is neither empty nor a table itself."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(name, inner)
    elif value is not None and value != "":
        yield name, str(value)


def _table(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Json) -> str:
    """Text on one line; a line of dashes would end the header."""
    return " ".join(value.split()) if isinstance(value, str) else ""
