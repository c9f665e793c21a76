"""Names of tensors behind what torch.compile, data parallelism and trainers put before them."""

from __future__ import annotations

import re
from collections.abc import Iterable

WRAPPERS = (
    *("_orig_mod.", "module.", "_forward_module.", "_fsdp_wrapped_module."),
    *("model.module.", "model._orig_mod."),
)
# What is put inside names, before some layers or all of them.
INNER = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def common_prefix(names: Iterable[str]) -> str:
    """Wrappers that all names begin with, one after the other; "" for none."""
    prefix, rest = "", list(names)
    while rest:
        found = [wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in rest)]
        if all(n.startswith("model.") for n in rest) and any(n.startswith("model.model.") for n in rest):
            found.append("model.")
        if not found:
            break
        prefix, rest = prefix + found[0], [name.removeprefix(found[0]) for name in rest]
    return prefix


def without_wrappers(name: str) -> str:
    """One name of a checkpoint that was found to have such a prefix, or none, without it."""
    name = INNER.sub("", name)
    while wrapper := next(
        (w for w in (*WRAPPERS, "model.model.", "model.lm_head.") if name.startswith(w)), ""
    ):
        name = name.removeprefix("model." if wrapper.startswith("model.") else wrapper)
    return name
