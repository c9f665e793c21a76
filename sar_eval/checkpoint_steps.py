"""The training step in a checkpoint's name, as trainers write it.

Known forms: `checkpoint-2000` (transformers, TRL), `iter_0001000` (Megatron), `global_step2000`
(DeepSpeed), `epoch=3-step=2000.ckpt` (Lightning), `ckpt_5`, `step-10k`, `2000`, and a revision
`ORG/NAME@step1000-tokens4B`.
"""

from __future__ import annotations

import re

# A letter before the word would make it another one (`timestep` is none of training's).
_WORDS = r"(?:^|[^a-z])(?:global[-_]?)?(?:{})(?:[-_=:. ]?)(\d{{1,12}})(k|m)?(?![a-z\d])(?!\.\d)"
# Most telling first: Lightning's names have an epoch and a step.
_FORMS = [
    re.compile(_WORDS.format(words), re.IGNORECASE)
    for words in ("steps?", "iter(?:ation)?s?", "checkpoint|ckpt", "epochs?")
]
_NUMBER = re.compile(r"(\d{1,12})(k|m)?(?:\.(?:ckpt|pth?|bin|safetensors))?", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


def step_in(name: str) -> int | None:
    """The training step that a checkpoint's name has, else None.

    The last part of a path or hub name that says one decides (`runs/step-5/model` is step 5). A number
    alone counts only as a name's last part, as in `checkpoints/2000`: before it, it may be a year. An
    epoch is taken where there is nothing better.
    """
    parts = [part for part in re.split(r"[/\\@]", name) if part]
    if parts and (alone := _NUMBER.fullmatch(parts[-1])):
        return _number(alone)
    for part in reversed(parts):
        for form in _FORMS:
            if found := list(form.finditer(part)):
                return _number(found[-1])
    return None


def _number(found: re.Match[str]) -> int:
    return int(found[1]) * _THOUSANDS[(found[2] or "").lower()]
