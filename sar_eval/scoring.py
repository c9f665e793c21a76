"""Several scorers over one decoding of each picture: the judge `score`, rewards, filters, and Python.

    with ScorerSet(["hps", "aesthetic"]) as scorers:
        for scored in scorers.score(["cat.png", "dog.png"], ["a cat", "a dog"]):
            print(scored.scores)

A picture is decoded once, in a thread that also resizes it for every scorer, while the networks work on
earlier pictures; scorers that share a network share its forward (see `networks.shared`).
"""

from __future__ import annotations

import math
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sar_eval import discover
from sar_eval.documents import shorten
from sar_eval.errors import BadInput, DeviceLost, SarEvalError
from sar_eval.options import check_name, check_whole_number
from sar_eval.types import Json, Score, ScorerFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.images.picture import Picture
    from sar_eval.protocols import Scorer

    Source = Picture | Path | str | bytes | NDArray[np.uint8]

BATCHES_AHEAD = 2  # decoded before their turn
MAX_PROMPT = 1_000_000  # characters; tokenizers read all of a prompt before they cut it


@dataclass(slots=True)
class Scored:
    """What all scorers say of one picture.

    Attributes:
        scores: by scorer's name; those without a number are not there.
        errors: why not, by scorer's name, or under "" why the picture cannot be read.
        truncated: names of the scorers whose network read only the beginning of the prompt.
        more: further numbers, by scorer's name.
        is_blank: all pixels have one colour.
    """

    scores: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    more: dict[str, dict[str, float]] = field(default_factory=dict)
    is_blank: bool = False


@dataclass(slots=True)
class _Item:
    """A picture on its way."""

    prompt: str
    picture: Picture | None = None
    scored: Scored = field(default_factory=Scored)


class ScorerSet:
    """Scorers by name, entered together."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 16,
        options: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> None:
        """Make the scorers, which check their options; networks are loaded on enter.

        Args:
            names: as `sar-eval list` shows them; `NAME:VARIANT`, or `path.py:SCORER`.
            device: torch device of all networks.
            dtype: of all networks; float32 for figures to publish.
            batch_size: pictures of one forward pass.
            options: tables of options by scorer's name, with or without its variant.

        Raises:
            BadInput: no name or one twice, an unknown variant or option, missing weights.
            UnknownName: no such scorer.
        """
        check_whole_number("batch_size", batch_size, "the scorers")
        self.batch_size, options = batch_size, dict(options or {})
        split = {label(name): split_variant(name) for name in names}
        if not names or len(split) < len(names):
            raise BadInput(f"scorers {', '.join(names) or 'are none'}: name some, each once")
        _check_tables(options, split)
        self.scorers: dict[str, Scorer] = {}
        for listed, (name, variant) in split.items():
            own = {**options.get(label(name), {}), **options.get(listed, {})}
            self.scorers[listed] = _make(name, variant, device, dtype, own)

    @property
    def versions(self) -> dict[str, str]:
        """By scorer's name."""
        return {name: str(scorer.version) for name, scorer in self.scorers.items()}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, scorer in self.scorers.items():
                with discover.guarded(f"scorer {name!r} cannot start"):
                    stack.enter_context(scorer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def score(self, pictures: Iterable[Source], prompts: Iterable[str]) -> Iterator[Scored]:
        """What the scorers say of each picture, in order; a failure of one picture is its own error.

        Args:
            pictures: paths, encoded files, RGB uint8 `[H, W, 3]`, or decoded pictures.
            prompts: one for each; "" where there is none.

        Raises:
            ValueError: not as many prompts as pictures.
        """
        for batch in self._decoded(zip(pictures, prompts, strict=True)):
            for name, scorer in self.scorers.items():
                _run(name, scorer, batch)
            yield from (item.scored for item in batch)

    def _decoded(self, pairs: Iterable[tuple[Source, str]]) -> Iterator[list[_Item]]:
        """Batches of decoded and prepared pictures; a few are on their way, never all."""
        with ThreadPoolExecutor(_decoding_threads()) as pool:
            waiting: deque[list[Future[_Item]]] = deque()
            pairs = iter(pairs)
            while True:
                submitted = [pool.submit(self._prepare, *pair) for pair in islice(pairs, self.batch_size)]
                if submitted:
                    waiting.append(submitted)
                if not waiting:
                    return
                if len(waiting) > BATCHES_AHEAD or not submitted:
                    yield [future.result() for future in waiting.popleft()]

    def _prepare(self, source: Source, prompt: str) -> _Item:
        """Decode, and resize for every scorer that says how; of large pictures one at a time."""
        from sar_eval.images.files import turn_of

        item = _Item(prompt)
        try:
            item.picture = _decode(source)
            item.scored.is_blank = item.picture.is_blank
        except BadInput as error:
            item.scored.errors[""] = str(error)
            return item
        with turn_of(item.picture.image.size):
            self._prepare_scorers(item)
        return item

    def _prepare_scorers(self, item: _Item) -> None:
        assert item.picture is not None
        for name, scorer in self.scorers.items():
            try:
                if prepare := getattr(scorer, "prepare", None):
                    prepare(item.picture)
                if why := _prompt_problem(scorer, item.prompt):
                    item.scored.errors[name] = why
            except Exception as error:  # noqa: BLE001 - a scorer is anyone's code
                item.scored.errors[name] = _failure(error)


def label(name: str) -> str:
    """What a scorer is called in evidence: the name as listed, or that of its file."""
    return Path(name.rpartition(":")[0]).stem if discover.is_file(name) else name


def split_variant(name: str) -> tuple[str, str]:
    """`clip:hessel` is the variant `hessel` of the scorer `clip`; a file has its default variant."""
    if discover.is_file(name):
        return name, ""
    scorer, _, variant = name.partition(":")
    return scorer, variant


def is_scorer(name: str) -> bool:
    """Whether a name is a scorer's, and no judge's."""
    if discover.is_file(name):
        return name.endswith(":SCORER")
    return discover.listed("judges", name) is None and bool(
        discover.listed("scorers", split_variant(name)[0])
    )


def measure_source(name: str) -> str:
    """A judge's or scorer's name as `sar-eval list` spells it, with a scorer's variant; a file's as it is.

    Raises:
        UnknownName: nothing is called so; the message has what is nearest.
        BadInput: it cannot be the name of anything.
    """
    check_name(name, "name of a judge or scorer")
    if discover.is_file(name):
        return name
    if judge := discover.listed("judges", name):
        return judge
    scorer, colon, variant = name.partition(":")
    if listed := discover.listed("scorers", scorer):
        return f"{listed}{colon}{variant}"
    raise discover.unknown("judge or scorer", name, [*discover.names("judges"), *discover.names("scorers")])


def variants_of(scorer: str) -> Mapping[str, ScorerFacts]:
    """The forms of a scorer with their facts, the default first.

    Raises:
        BadInput: what is called so is no scorer.
        UnknownName: nothing is called so.
    """
    found = getattr(discover.load("scorers", scorer), "variants", None)
    if not isinstance(found, Mapping) or not found:
        raise BadInput(f"{scorer} is no scorer: it has no table `variants` of its forms and their facts")
    return found


def _check_tables(options: Mapping[str, Any], split: Mapping[str, tuple[str, str]]) -> None:
    known = {*split, *(label(name) for name, _ in split.values())}
    for name, table in options.items():
        if name not in known:
            raise BadInput(f"options for scorer {name!r}, but the scorers are {', '.join(split)}")
        if not isinstance(table, Mapping):
            raise BadInput(f"options of scorer {name!r} must be a table, as {name}.OPTION=VALUE")


def _make(name: str, variant: str, device: str, dtype: str, options: Mapping[str, Json]) -> Scorer:
    make, known = discover.load("scorers", name), list(variants_of(name))
    if variant and variant not in known:
        raise discover.unknown(f"variant of scorer {name!r},", variant, [v for v in known if v])
    with discover.guarded(f"scorer {name!r} cannot be made with the options {dict(options)}"):
        try:
            return make(variant=variant or known[0], device=device, dtype=dtype, **options)  # type: ignore[no-any-return]
        except TypeError as error:
            raise BadInput(f"scorer {name!r} does not take the options {dict(options)}: {error}") from error


def _decode(source: Source) -> Picture:
    from sar_eval.images.picture import Picture

    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, Path)):
        return Picture.open(Path(source))
    return Picture.from_bytes(source) if isinstance(source, bytes) else Picture.from_pixels(source)


def _decoding_threads() -> int:
    from sar_eval.images.files import DECODING_THREADS

    return DECODING_THREADS


def _prompt_problem(scorer: Scorer, prompt: Any) -> str:
    if not isinstance(prompt, str):
        return f"the prompt is of type {type(prompt).__name__}, not a text"
    if scorer.facts.needs_prompt and not prompt.strip():
        return "the picture has no prompt"
    if scorer.facts.needs_prompt and not prompt.isascii() and re.search("[\ud800-\udfff]", prompt):
        return "the prompt has half a character (a lone surrogate), which no tokenizer reads"
    if len(prompt) > MAX_PROMPT:
        return f"a prompt of {len(prompt):,} characters, of at most {MAX_PROMPT:,}"
    return ""


def _run(name: str, scorer: Scorer, batch: Sequence[_Item]) -> None:
    """Put one scorer's scores of a batch into its items; of one that fails, those of each picture alone."""
    items = [item for item in batch if item.picture is not None and name not in item.scored.errors]
    if not items:
        return
    try:
        found = _scores(scorer, items)
    except Exception as error:  # noqa: BLE001 - a scorer is anyone's code
        if len(items) == 1:
            items[0].scored.errors[name] = _failure(error)
            return
        for item in items:  # one picture may be to blame
            _run(name, scorer, [item])
        return
    for item, score in zip(items, found, strict=True):
        _keep(name, score, item.scored)


def _scores(scorer: Scorer, items: Sequence[_Item]) -> list[Any]:
    pictures = [item.picture for item in items if item.picture is not None]
    found = list(scorer.score(pictures, [item.prompt for item in items]))
    if len(found) != len(items):
        raise BadInput(f"the scorer gave {len(found)} scores for {len(items)} pictures")
    return found


def _failure(error: Exception) -> str:
    """A picture's error where a scorer raised something; raises it again if it is not of the picture."""
    if isinstance(error, BadInput):
        return str(error)
    if lost := lost_device(error):
        raise lost from error
    if isinstance(error, SarEvalError):  # the device is lost, a package is missing
        raise error
    return " ".join(f"{type(error).__name__}: {error}".split())


def lost_device(error: Exception) -> DeviceLost | None:
    """The error to raise where torch's says that its card failed; this process cannot use it any more."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.AcceleratorError) or "out of memory" in str(error):
        return None
    return DeviceLost(str(error).splitlines()[0])


def _keep(name: str, score: Any, scored: Scored) -> None:
    """Put a score into what is said of its picture. Scorers are anyone's code: nothing is believed."""
    if not isinstance(score, Score):
        scored.errors[name] = f"the scorer gave {type(score).__name__} instead of Score"
    elif score.value is None or score.error:
        scored.errors[name] = str(score.error or "the scorer gave no number")
    elif (value := finite(score.value)) is None:
        scored.errors[name] = f"the scorer's number is {shorten(score.value)}"
    elif (more := _numbers(score.more)) is None:
        scored.errors[name] = f"the scorer's further numbers are {shorten(score.more)}"
    else:
        scored.scores[name] = value
        if more:
            scored.more[name] = more
    if getattr(score, "truncated", False):
        scored.truncated.append(name)


def finite(value: Any) -> float | None:
    """A finite number as a float, also NumPy's and torch's scalars; None for anything else."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        number = float(value)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):  # a tensor of several numbers: RuntimeError
        return None
    return number if math.isfinite(number) else None


def _numbers(values: Any) -> dict[str, float] | None:
    """A table of finite numbers; None for anything else."""
    if not isinstance(values, Mapping):
        return None
    found = {str(name): number for name, value in values.items() if (number := finite(value)) is not None}
    return found if len(found) == len(values) else None


def read_names(value: Json, owner: str) -> list[str]:
    """Names from a recipe's list or the command line's `hps,clip:hessel`.

    Raises:
        BadInput: neither text nor a list of texts.
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise BadInput(f"scorers {value!r} of {owner}: names, as hps,imagereward (see `sar-eval list`)")
    return [name.strip() for name in names]
