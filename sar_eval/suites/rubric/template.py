"""The text that asks about a picture: a template with holes for the prompt and for keys of its checks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json, Prompt

_HOLE = re.compile(r"\{\{[A-Za-z_]\w*\}\}|\{([A-Za-z_]\w*)\}")


def holes(template: str) -> tuple[str, ...]:
    """Names of the template's holes, in order; `{{name}}` is no hole, but the text `{name}`."""
    return tuple(dict.fromkeys(found[1] for found in _HOLE.finditer(template) if found[1]))


def fill(template: str, prompt: Prompt) -> str:
    """The template with `{prompt}` as the prompt's text and `{KEY}` as that key of its checks.

    What is filled in is not looked at again, so a prompt with `{explanation}` in it stays as it is.
    Lists are written one item a line; of a question (an object with a `text`) its text.

    Raises:
        BadInput: the checks do not have the key, or it holds something that is neither text, number nor
            a list of these.
    """
    checks = prompt.checks if isinstance(prompt.checks, Mapping) else {}

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][1:-1]
        if name == "prompt":
            return prompt.text
        if name not in checks:
            raise BadInput(
                f"prompt {prompt.id!r}: the template asks for {{{name}}}, which its checks do not have"
            )
        return _written(checks[name], f"prompt {prompt.id!r}: {name}")

    return _HOLE.sub(filled, template)


def expected_count(prompt: Prompt, key: str) -> int:
    """How many answers a prompt wants: the length of the list `key` of its checks.

    Raises:
        BadInput: there is no such list, or it is empty.
    """
    checks = prompt.checks if isinstance(prompt.checks, Mapping) else {}
    items = checks.get(key)
    if not isinstance(items, list) or not items:
        raise BadInput(f"prompt {prompt.id!r}: its checks have no list {key!r}")
    return len(items)


def _written(value: Json, where: str) -> str:
    if isinstance(value, list):
        return "\n".join(_item(item, where).strip() for item in value)
    return _item(value, where)


def _item(value: Json, where: str) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        value = value["text"]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise BadInput(f"{where} is {shorten(value)}: a template takes texts, numbers and lists of them")
