"""The training step in a checkpoint's name, as trainers write it.

Known forms: `checkpoint-2000` (transformers, TRL), `iter_0001000` (Megatron), `global_step2000`
(DeepSpeed), `epoch=3-step=2000.ckpt` (Lightning), `ckpt_5`, `step-10k`, `2000`, and a revision
`ORG/NAME@step1000-tokens4B`.
"""

from __future__ import annotations

import re

# A letter before the word would make it another one (`timestep` is none of training's).
_WORDS = r"(?<![a-z])(?:global[-_]?)?(?:{})(?:[-_=:. ]?)(\d{{1,12}})(k|m)?(?![a-z\d])(?!\.\d)"
# Most telling first: Lightning's names have an epoch and a step.
_FORMS = [
    re.compile(_WORDS.format(words), re.IGNORECASE)
    for words in ("steps?", "iter(?:ation)?s?", "checkpoint|ckpt", "epochs?")
]
_NUMBER = re.compile(r"(\d{1,12})(k|m)?(?:\.(?:ckpt|pth?|bin|safetensors))?", re.IGNORECASE)
_PART = re.compile(r"[^/\\@]+")
_COMMIT = re.compile(r"@[0-9a-f]{7,40}$")
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


def step_in(name: str) -> int | None:
    """The training step that a checkpoint's name has, else None.

    The last part of a path or hub name that says one decides (`runs/step-5/model` is step 5). A number
    alone counts only as a name's last part, as in `checkpoints/2000`: before it, it may be a year. An
    epoch is taken where there is nothing better.
    """
    if (found := _find(name)) is None:
        return None
    return int(found[1]) * _THOUSANDS[(found[2] or "").lower()]


def training_of(name: str) -> str:
    """The name with `*` for the step, without a commit: the same for all checkpoints of one training."""
    if (found := _find(name)) is not None:
        name = f"{name[: found.start(1)]}*{name[max(found.end(1), found.end(2)) :]}"
    return _COMMIT.sub("", name)


def _find(name: str) -> re.Match[str] | None:
    """Where the step is: its digits, and `k` or `m`."""
    parts = [part.span() for part in _PART.finditer(name)]
    if parts and (alone := _NUMBER.fullmatch(name, *parts[-1])):
        return alone
    for start, end in reversed(parts):
        for form in _FORMS:
            if found := list(form.finditer(name, start, end)):
                return found[-1]
    return None
