"""Rewards: judges and scorers, each in processes of its own, that say what a picture is worth.

    with RewardPool(reward_specs({"shapes-soft": {"workers": 2}}, "the example")) as pool:
        verdicts = [future.result() for future in pool.submit(items)]

A judge's fault is a verdict with an error, never an exception; how many may be lost, `check_losses` says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sar_eval import discover
from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete, UnknownName
from sar_eval.options import check_name, check_names, check_storable, check_whole_number
from sar_eval.rewards.process import RewardProcess
from sar_eval.rewards.worker import Item, JudgeCall
from sar_eval.scoring import is_scorer, measure_source
from sar_eval.types import Json, Verdict

MAX_LOST = 0.2  # share of a step's rewards: above it, a run would train on what the judge happens to like
LARGEST = 1e9  # of a number in a table
MIXED = "mixed"  # what the weighted sum is called among the rewards
KEYS = ("judge", "weight", "normalise", "quantise", "workers", "device", "timeout_s", "options")


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One reward of a recipe: a table `[rewards.NAME]`.

    Attributes:
        name: of the reward, in the journal.
        judge: its name, or `path.py:JUDGE`.
        weight: of its scores in the sum; 0 journals the reward without training on it.
        normalise: whether a group's scores get mean 0 and standard deviation 1 before they are added.
        quantise: scores are rounded to multiples of this; 0 leaves them.
        workers: processes, among which the pictures of a submission are divided.
        device: "cpu", "cuda" (the rank's own card) or "cuda:1", as the trainer counts its cards.
        timeout_s: the longest wait for the next verdict, in seconds.
        options: of the judge.
    """

    name: str
    judge: str
    weight: float = 1.0
    normalise: bool = False
    quantise: float = 0.0
    workers: int = 1
    device: str = "cpu"
    timeout_s: float = 300.0
    options: Mapping[str, Json] = field(default_factory=dict)


def reward_specs(
    tables: Mapping[str, Mapping[str, Json]], where: str, folder: Path | None = None
) -> list[RewardSpec]:
    """The rewards of a recipe's tables `[rewards.NAME]`, checked; nothing is loaded.

    `judge` is by default NAME. Where it names a scorer (`hps`, `clip:simplear`, `mine.py:SCORER`), the
    judge is `score` with this scorer.

    Args:
        tables: by the reward's name.
        where: the file they stand in, for messages.
        folder: where a file `mine.py:JUDGE` is looked for first: the recipe's.

    Raises:
        BadInput, UnknownName: naming the file and the key.
    """
    if not isinstance(tables, Mapping) or not tables:
        raise BadInput(f"{where}: no table [rewards.NAME]; name a judge or a scorer (see `sar-eval list`)")
    specs = [
        _reward_spec(name, table, f"{where}: rewards.{name}", folder) for name, table in tables.items()
    ]
    if not any(spec.weight for spec in specs):
        raise BadInput(f"{where}: the weights of all rewards are 0: there is nothing to learn")
    return specs


def _reward_spec(name: str, table: Mapping[str, Json], where: str, folder: Path | None) -> RewardSpec:
    check_name(name, where)
    if name in ("", MIXED):
        raise BadInput(f"{where}: {name!r} is no name of a reward (the weighted sum is called {MIXED!r})")
    if not isinstance(table, Mapping):
        raise BadInput(f"{where} is {shorten(table)}: a table [rewards.{name}]")
    check_names(table, KEYS, where)
    check_whole_number("workers", table.get("workers", 1), where, maximum=1024)
    options = table.get("options", {})
    if not isinstance(options, Mapping):
        raise BadInput(f"{where}.options is {shorten(options)}: a table, as {{threshold = 0.6}}")
    check_storable(options, f"{where}.options")
    judge, options = _judge_of(table.get("judge", name), options, where, folder)
    return RewardSpec(
        name=name,
        judge=judge,
        weight=_number(table, "weight", 1.0, where, -LARGEST),
        normalise=_flag(table, "normalise", where),
        quantise=_number(table, "quantise", 0.0, where, 0.0),
        workers=table.get("workers", 1),
        device=_device(table.get("device", "cpu"), where),
        timeout_s=_number(table, "timeout_s", 300.0, where, 1.0),
        options=options,
    )


def _judge_of(
    named: Json, options: Mapping[str, Json], where: str, folder: Path | None
) -> tuple[str, dict[str, Json]]:
    """The judge that a name means, with its options; a scorer's is `score`."""
    if not isinstance(named, str) or not named:
        raise BadInput(f"{where}.judge is {shorten(named)}: the name of a judge or a scorer")
    check_name(named, f"{where}.judge")
    found = _file_beside(named, folder)
    try:
        measure_source(found)
    except UnknownName as error:
        raise UnknownName(f"{where}: {error}") from error
    if not is_scorer(found):
        return found, dict(options)
    if "scorers" in options:
        raise BadInput(
            f'{where}.options.scorers: {found} is itself the scorer; for several, judge = "score"'
        )
    return "score", {"scorers": [found], **options}


def _file_beside(named: str, folder: Path | None) -> str:
    """`mine.py:JUDGE` beside the recipe, wherever the command is given; other names as they are."""
    file, colon, attribute = named.rpartition(":")
    if folder is None or not discover.is_file(named) or not (folder / file).is_file():
        return named
    return f"{(folder / file).resolve()}{colon}{attribute}"


def _number(table: Mapping[str, Json], key: str, default: float, where: str, low: float) -> float:
    value = table.get(key, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= LARGEST:
        return float(value)
    raise BadInput(f"{where}.{key} is {shorten(value)}: a number from {low:g} to {LARGEST:g}")


def _flag(table: Mapping[str, Json], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise BadInput(f"{where}.{key} is {shorten(value)}: true or false")
    return value


def _device(device: Json, where: str) -> str:
    kind, colon, card = str(device).partition(":")
    is_card = card.isascii() and card.isdecimal() if colon else not card
    if device == "cpu" or (isinstance(device, str) and kind == "cuda" and is_card):
        return str(device)
    raise BadInput(f'{where}.device is {shorten(device)}: "cpu", "cuda" or a card, as "cuda:1"')


class _Reward:
    """One reward's workers, each with a thread that talks to it."""

    def __init__(self, spec: RewardSpec, role: str) -> None:
        self.role = role
        call = JudgeCall(spec.judge, spec.device, spec.options, spec.timeout_s, spec.workers)
        self.spec = spec
        self.workers = [RewardProcess(call) for _ in range(spec.workers)]
        self.threads = [ThreadPoolExecutor(1, f"reward {spec.name}") for _ in self.workers]
        self.collector = ThreadPoolExecutor(1, f"rewards {spec.name}")
        self.last: list[Future[Any]] = []  # of each worker: whether it is at work

    def launch(self) -> None:
        with self._named():
            for worker in self.workers:
                worker.launch()

    def wait_until_ready(self) -> None:
        with self._named():
            for worker in self.workers:
                worker.wait_until_ready()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say in an error whose it is."""
        try:
            yield
        except BadInput as error:
            raise BadInput(f"{self.role} {self.spec.name!r} cannot start: {error}") from error

    def submit(self, items: Sequence[Item]) -> Future[list[Verdict]]:
        """Divide the items in turn, so that every worker gets some of each prompt's group."""
        number = len(self.workers)
        shares = [items[first::number] for first in range(number)]
        self.last = [
            thread.submit(worker.judge, share)
            for thread, worker, share in zip(self.threads, self.workers, shares, strict=True)
        ]
        return self.collector.submit(_in_order, self.last, len(items))

    def close(self) -> None:
        """End the workers, those at work in the middle of it."""
        for worker, future in zip(self.workers, self.last, strict=bool(self.last)):
            if not future.done():
                worker.interrupt()
        for executor in (*self.threads, self.collector):
            executor.shutdown()
        for worker in self.workers:
            worker.close()


def _in_order(shares: Sequence[Future[list[Verdict]]], number: int) -> list[Verdict]:
    """The verdicts of shares that were divided in turn, in the order of the whole."""
    found = [future.result() for future in shares]
    return [found[n % len(found)][n // len(found)] for n in range(number)]


class RewardPool:
    """All rewards of a run, or all judges of its hold-out."""

    def __init__(self, specs: Sequence[RewardSpec], role: str = "reward") -> None:
        """Nothing is started yet.

        Args:
            specs: of each.
            role: what they are called in messages.
        """
        self.specs, self._role = tuple(specs), role

    def __enter__(self) -> Self:
        """Start all workers, which load their judges at the same time.

        Raises:
            BadInput: a judge cannot start; the message names the reward and is otherwise the judge's.
        """
        with ExitStack() as stack:
            self._rewards = [_Reward(spec, self._role) for spec in self.specs]
            for reward in self._rewards:
                stack.callback(reward.close)
                reward.launch()
            for reward in self._rewards:
                reward.wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def versions(self) -> dict[str, str]:
        """Of the judges, by reward's name."""
        return {reward.spec.name: reward.workers[0].version for reward in self._rewards}

    def submit(self, items: Sequence[Item]) -> list[Future[list[Verdict]]]:
        """Begin to judge; one future a reward, in the order of the specs, each of one verdict an item.

        A worker that dies, or is silent for `timeout_s`, is started again, and what it owed is judged once
        more; then, and for whatever else is wrong with a judge, the verdict is an error. The futures raise
        nothing.
        """
        return [reward.submit(list(items)) for reward in self._rewards]


def scores(verdicts: Sequence[Verdict]) -> list[float]:
    """The verdicts' scores; NaN where there is none."""
    return [_score(verdict) for verdict in verdicts]


def _score(verdict: Verdict) -> float:
    is_number = verdict.error is None and verdict.score is not None and math.isfinite(verdict.score)
    return float(verdict.score) if is_number and verdict.score is not None else math.nan


def lost_share(verdicts: Sequence[Verdict]) -> float:
    """The share of verdicts without a score, 0 to 1; those of draws that failed are among them."""
    return sum(map(math.isnan, scores(verdicts))) / len(verdicts) if verdicts else 0.0


def check_losses(rewards: Mapping[str, Sequence[Verdict]], limit: float = MAX_LOST) -> None:
    """Stop a run that loses too many of a step's rewards: what is left is no sample of its policy.

    Args:
        rewards: the step's verdicts by reward's name.
        limit: the largest share that may be lost.

    Raises:
        Incomplete: naming the reward, the share and the most frequent reason.
    """
    for name, verdicts in rewards.items():
        if (share := lost_share(verdicts)) > limit:
            lost = [v for v, score in zip(verdicts, scores(verdicts), strict=True) if math.isnan(score)]
            why, times = Counter(verdict.error or "no score" for verdict in lost).most_common(1)[0]
            raise Incomplete(
                f"reward {name!r} has no score for {len(lost)} of {len(verdicts)} pictures of this step "
                f"({share:.0%}, at most {limit:.0%} may be lost); {times} times: {shorten(why, 300)}. "
                "Mend this and run the same command again to go on"
            )
