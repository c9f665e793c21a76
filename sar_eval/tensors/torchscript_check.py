"""What a TorchScript file would do, found out before any of it is done.

A TorchScript file is a zip archive of tensors, of pickles that join them, and of programs in a subset of
Python. Loading one already runs parts of the programs: default values, class constants and
`__setstate__`. So the text is checked before torch sees it, and torch is given a copy that holds exactly
what was checked, not the file: two readers of zip archives need not agree on what is in one. After
loading, the compiled graphs are checked once more, by the operators that were resolved.
"""

from __future__ import annotations

import keyword
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

from sar_eval.errors import BadInput
from sar_eval.tensors.torchscript_operators import ALLOWED_CALLS, is_allowed

MAX_MEMBERS = 100_000
MAX_TEXT_BYTES = 64_000_000  # programs and pickles together
_CODE = re.compile(r"code/[\w./]+\.py")
_PICKLE = re.compile(r"(data|constants)\.pkl")
_TENSOR = re.compile(r"(data|constants)/\d+|byteorder|version|\.data/version")
# All that torch writes; a program with anything else in it is refused, so that torch and this file cannot
# read one text in two ways.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"|[A-Za-z_]\w*|\d+\.?\d*(?:e[+-]?\d+)?j?|\s+|.', re.ASCII)
_PUNCTUATION = frozenset("()[]{}:,.=+-*/%<>|&^~@!;_")
_KEYWORDS = {*keyword.kwlist} - {"None", "True", "False"}
_PADDING = ("",) * 4  # behind the last token
_CALLABLE = _KEYWORDS | ALLOWED_CALLS
_FORBIDDEN = ("__getstate__", "__setstate__", "awaitable", "fork", "print")


def copy_checked(path: Path, target: IO[bytes]) -> None:
    """Copy programs, pickles and tensors of a TorchScript file to another archive, and check them.

    Raises:
        BadInput: no TorchScript file, a damaged one (a checksum does not fit), one that grows beyond its
            own size when it is unpacked, or one whose programs name an operator that is not allowed.
    """
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
            for name, member in _members(source, path).items():
                _copy_member(name, member, source, copy, path)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{path} is no readable TorchScript file, or it is damaged: {first}; get the file again"
        ) from error


def _copy_member(
    name: str, member: zipfile.ZipInfo, source: zipfile.ZipFile, copy: zipfile.ZipFile, path: Path
) -> None:
    """Check one member and copy it, unless torch does not need it; a wrong checksum shows in any."""
    if _TENSOR.fullmatch(name):
        with source.open(member) as tensor, copy.open(f"archive/{name}", "w", force_zip64=True) as to:
            copyfileobj(tensor, to, 1 << 20)
        return
    data = source.read(member)
    if _CODE.fullmatch(name) or _PICKLE.fullmatch(name):
        (_check_program if name.endswith(".py") else _check_pickle)(data, f"{path}: {name}")
        copy.writestr(f"archive/{name}", data)


def _members(source: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members by name below the archive's one folder; too many, too large or doubled ones are refused."""
    infos, size = source.infolist(), path.stat().st_size
    if len(infos) > MAX_MEMBERS:
        raise BadInput(f"{path}: {len(infos)} files in one TorchScript archive")
    members = {info.filename.partition("/")[2]: info for info in infos}
    text = sum(info.file_size for name, info in members.items() if not _TENSOR.fullmatch(name))
    if text > MAX_TEXT_BYTES or sum(info.file_size for info in infos) > size + MAX_TEXT_BYTES:
        raise BadInput(
            f"{path}: its contents are much larger than the file: no TorchScript file of torch's"
        )
    if len(members) < len(infos) or len({info.filename.partition("/")[0] for info in infos}) > 1:
        raise BadInput(f"{path} is no TorchScript file: a name is there twice, or files beside its folder")
    return members


def _check_pickle(data: bytes, where: str) -> None:
    """Refuse objects of torch's own C++ classes, whose constructors are code; all others are in `code/`."""
    names = [str(value) for op, value, _ in pickletools.genops(data) if op.name == "GLOBAL"]
    for name in names:
        if name.replace(" ", ".").startswith("__torch__.torch.classes"):
            raise BadInput(f"{where} uses {name.replace(' ', '.')}, which is not allowed")
    if b"torch.classes" in data:
        raise BadInput(f"{where} uses torch.classes, which is not allowed")


def _check_program(data: bytes, where: str) -> None:
    """Check every name in a program's text.

    Raises:
        BadInput: naming file and operator.
    """
    text = data.decode("latin-1")
    tokens = [token for token in _TOKEN.findall(text) if not token.isspace()]
    odd = [token for token in tokens if len(token) == 1 and not (token.isalnum() or token in _PUNCTUATION)]
    if odd or '"""' in text:
        found = ascii(odd[0]) if odd else "a text of several lines"
        raise BadInput(f"{where} is no program that torch wrote: it contains {found}")
    for name in _operators_named(tokens):
        raise BadInput(_refusal(where, name))


def _operators_named(tokens: list[str]) -> Iterator[str]:
    """Names in the tokens that are operators which are not allowed, however they are reached."""
    own = {tokens[n] for n in range(len(tokens) - 2) if tokens[n + 1 : n + 3] == ["=", "__torch__"]}
    qualified = False  # inside `__torch__.a.b`, which names the file's own classes and functions
    for n, word in enumerate(tokens):
        before = tokens[n - 1] if n else ""
        after_dot = before.endswith(".")  # also after a number: `0.5.save`
        qualified = word == "__torch__" or (qualified and (word == "." or after_dot))
        if not (word[0].isalpha() or word[0] == "_"):
            continue
        if word in _FORBIDDEN or (word == "classes" and tokens[n - 2 : n] == ["torch", "."]):
            yield word
        elif after_dot:
            yield from () if qualified else _refused(word)
        elif before not in ("def", "class"):
            yield from _refused_bare(word, [*tokens[n + 1 : n + 100], *_PADDING], own)


def _refused_bare(word: str, following: list[str], own: set[str]) -> Iterable[str]:
    """The operator that a name without a dot before it means, if that is not allowed."""
    if word == "ops":
        namespaced = following[0] == following[2] == "." and is_allowed(f"{following[1]}::{following[3]}")
        return () if namespaced else ["".join([word, *following[:4]])]
    if word == "getattr":
        return _refused_attribute(following)
    return {word} - _CALLABLE - own if following[0] == "(" else ()


def _refused(name: str) -> Iterable[str]:
    known = name in _registered() and not (is_allowed(f"aten::{name}") or is_allowed(f"prim::{name}"))
    return [name] if known else ()


def _refused_attribute(following: list[str]) -> Iterable[str]:
    """As `_refused_bare`, for what follows `getattr`: `(OBJECT, "NAME")`, as torch writes it."""
    depth = list(accumulate({"(": 1, ")": -1}.get(token, 0) for token in following))
    end = depth.index(0, 1) if 0 in depth[1:] else 0
    comma, name = following[end - 2 : end] if end > 3 else ("", "")
    if comma != "," or not re.fullmatch(r'"\w+"', name, re.ASCII) or name.strip('"') in _FORBIDDEN:
        return ["getattr"]
    return _refused(name.strip('"'))


@cache
def _registered() -> frozenset[str]:
    """Names of all operators that an attribute of a tensor or of `torch` may mean."""
    import torch

    schemas = torch._C._jit_get_all_schemas()
    names = (schema.name.partition("::") for schema in schemas)
    return frozenset(name for namespace, _, name in names if namespace in ("aten", "prim"))


def check_graphs(module: Any, path: Path) -> None:
    """Check the operators of all methods of a loaded module, with everything that they call.

    Raises:
        BadInput: naming file and operator.
    """
    for name in module._c._method_names():
        for kind in _kinds(module._c._get_method(name).inlined_graph):
            if not is_allowed(kind):
                raise BadInput(_refusal(str(path), kind))


def _kinds(graph: Any) -> Iterator[str]:
    blocks: list[Any] = [graph]
    while blocks:
        for node in blocks.pop().nodes():
            yield node.kind()
            blocks += _inner(node)


def _inner(node: Any) -> Iterable[Any]:
    return [*node.blocks(), *(node.g(name) for name in node.attributeNames() if node.kindOf(name) == "g")]


def _refusal(where: str, operator: str) -> str:
    return (
        f"{where} uses {operator}, which a TorchScript file may not: it may only compute with tensors. "
        "Get the file from its publisher; if it is yours, export it without that (docs/engines.md)"
    )
