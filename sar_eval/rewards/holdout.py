"""The hold-out: a benchmark's prompts under its own judges, drawn again and again with the same seeds.

A reward can be hacked: it rises, and the pictures get worse. Judges that are not rewarded, on prompts that
are not trained on, see that. Every evaluation draws the same seeds as that of step 0, so that the two are
paired by draw and the noise of sampling mostly cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput, Incomplete
from sar_eval.measures import Measure, collect_scores
from sar_eval.recipe import Recipe, joined_protocol, load_recipe
from sar_eval.resume_rules import refuse_others
from sar_eval.rewards.judged_waves import Judges, judged
from sar_eval.rewards.pool import RewardSpec, reward_specs
from sar_eval.rewards.train_prompts import evenly_by_tag
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.paired import bootstrap_values, interval, value_of
from sar_eval.stats.pairing import pair
from sar_eval.storage.files import write_json
from sar_eval.storage.training_journal import HoldoutRow
from sar_eval.suites.locate import read_suite
from sar_eval.types import Draw, DrawProtocol, Generation, Json, Prompt, Verdict, make_draw, suite_digest

if TYPE_CHECKING:
    from sar_eval.decoding.token_engine import TokenEngine
    from sar_eval.rewards.recipe_tables import HoldoutTable

LEVEL = 0.95
Seen = Callable[[Generation, Mapping[str, Verdict]], None]


class HoldoutResult(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one evaluation.

    Attributes:
        step: after which it was made; 0 before the first.
        scores: by judge and key of the draw, in the judge's unit; a draw that has none is left out.
        faults: a reason for each judge that left some out.
    """

    step: int
    scores: Mapping[str, Mapping[str, float]]
    faults: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Holdout:
    """What is drawn, how, and who judges it.

    Attributes:
        suite: file of the prompts.
        prompts: in file order.
        protocol: the benchmark's own, or that of the rollouts.
        judges: the benchmark's first, then further ones; made with `pool.RewardPool`.
        images_per_prompt: of each evaluation.
        seed: of all evaluations.
    """

    suite: Path
    prompts: tuple[Prompt, ...]
    protocol: DrawProtocol
    judges: tuple[RewardSpec, ...]
    images_per_prompt: int = 1
    seed: int = 0

    @classmethod
    def read(
        cls,
        table: HoldoutTable,
        rollouts: DrawProtocol | None,
        native_resolution: int,
        seed: int,
        where: str,
        key: str = "holdout",
    ) -> Holdout:
        """What a recipe's table `[holdout]` asks for; nothing heavy is loaded.

        Args:
            table: of the recipe.
            rollouts: the protocol of the training's draws; None if it draws nothing.
            native_resolution: of the checkpoint, for a benchmark that names none.
            seed: of all evaluations.
            where: the recipe's file, for messages.
            key: what the table is called there.

        Raises:
            BadInput, UnknownName: no such benchmark or judge, or the benchmark has no judge or prompts.
        """
        recipe = load_recipe(table.benchmark)
        prompts, own = read_suite(recipe.suite).prompts, _own_protocol(recipe, native_resolution)
        return cls(
            Path(str(recipe.suite)),
            evenly_by_tag(prompts, table.max_prompts or len(prompts)),
            rollouts if rollouts is not None and table.images_of_the_protocol else own,
            _judges(recipe, table, where, key),
            table.images_per_prompt,
            seed,
        )

    def draws_like(self, protocol: DrawProtocol) -> bool:
        """Whether an engine of this protocol draws these pictures; else another engine must."""
        return replace(protocol, name=self.protocol.name) == self.protocol

    def draws(self) -> list[Draw]:
        """The same at every step."""
        return [make_draw(p, n, self.seed) for p in self.prompts for n in range(self.images_per_prompt)]

    def evaluate(
        self,
        engine: TokenEngine,
        judges: Judges,
        step: int,
        rank: int = 0,
        ranks: int = 1,
        seen: Seen = lambda generation, verdicts: None,
    ) -> HoldoutResult:
        """Draw the suite with the weights that the engine has now, and judge it.

        Args:
            engine: open, with the policy's weights.
            judges: a pool of `self.judges`.
            step: after which it is made.
            rank, ranks: which share of the draws is this process's (see `joined`).
            seen: is shown each draw of the share with its verdicts by judge.

        Raises:
            ValueError: the engine draws under another protocol.
        """
        if not self.draws_like(engine.protocol):
            raise ValueError(f"the engine draws under {engine.protocol}, not under {self.protocol}")
        draws = self.draws()[rank::ranks]
        prompts = {draw.key: draw.prompt for draw in draws}
        scores: dict[str, dict[str, float]] = {spec.name: {} for spec in self.judges}
        faults: dict[str, str] = {}
        for generation, verdicts in judged(engine.begin(draws), lambda g: (prompts[g.key], g), judges):
            failed = Verdict(generation.key, "", "", error=f"not drawn: {generation.error}")
            by_judge = dict(zip(scores, verdicts or [failed] * len(scores), strict=True))
            seen(generation, by_judge)
            for name, verdict in by_judge.items():
                if verdict.error is None and verdict.score is not None:
                    scores[name][generation.key] = verdict.score
                else:
                    faults.setdefault(name, f"{verdict.key}: {verdict.error or 'no score'}")
        return HoldoutResult(step=step, scores=scores, faults=faults)

    def sample(self) -> dict[str, Json]:
        """What makes evaluations pairs: another one of these, and they are not of the same sample."""
        found: dict[str, Json] = msgspec.to_builtins(
            {
                "prompts": suite_digest(self.prompts),
                "protocol": self.protocol.to_json(),
                "judges": {spec.name: [spec.judge, spec.options] for spec in self.judges},
                "images_per_prompt": self.images_per_prompt,
                "seed": self.seed,
            }
        )
        return found

    def losses(self, result: HoldoutResult) -> list[str]:
        """What each judge left out of an evaluation, in sentences: its figure is of the rest."""
        total = len(self.prompts) * self.images_per_prompt
        return [
            f"Hold-out judge {name!r} has no score for {total - len(result.scores[name])} of {total} "
            f"pictures at step {result.step}; {why}"
            for name, why in result.faults.items()
        ]

    def rows(self, first: HoldoutResult, result: HoldoutResult) -> list[HoldoutRow]:
        """What each judge says of an evaluation, and of its difference to step 0, as `compare` does.

        Tasks (tags) weigh the same. Intervals are at 95 %, clustered by prompt within tasks
        (`stats.paired`). Draws that have a score in one of the two alone are not in the difference.
        """
        return [self._row(spec.name, first, result, n == 0) for n, spec in enumerate(self.judges)]

    def _row(self, judge: str, first: HoldoutResult, result: HoldoutResult, is_own: bool) -> HoldoutRow:
        # A benchmark's own judge scores from 0 to 1; of a scorer's unit nothing is known.
        before, after = (self._measure(each.scores[judge], is_own) for each in (first, result))
        value, paired = metric_of(after), pair(before, after)
        row = HoldoutRow(
            step=result.step,
            judge=judge,
            value=value.value,
            low=value.low,
            high=value.high,
            n=sum(len(stratum.prompts) for stratum in after.strata),
        )
        if result.step == first.step or not paired.tasks:
            return row
        low, high = interval(paired, bootstrap_values(paired), LEVEL)
        return replace(row, change=value_of(paired), change_low=low, change_high=high)

    def _measure(self, scores: Mapping[str, float], is_own: bool) -> Measure:
        strata = collect_scores(self.prompts, scores.items()).strata([p.tag for p in self.prompts])
        return Measure("overall", strata, bounds=(0.0, 1.0) if is_own else None)


def joined(results: Sequence[HoldoutResult], *, required: bool = True) -> HoldoutResult:
    """The shares of all ranks as one result.

    Args:
        results: of one step.
        required: whether every judge must have a score; see `check_scores`.

    Raises:
        Incomplete: a judge has none.
    """
    names = list(results[0].scores)
    scores = {name: {key: s for r in results for key, s in r.scores[name].items()} for name in names}
    faults = {name: why for result in reversed(results) for name, why in result.faults.items()}
    result = HoldoutResult(step=results[0].step, scores=scores, faults=faults)
    if required:
        check_scores(result)
    return result


def check_scores(result: HoldoutResult) -> None:
    """Refuse a judge that watches nothing.

    Raises:
        Incomplete: it has no score for any picture.
    """
    for name, scores in result.scores.items():
        if not scores:
            why = result.faults.get(name, "no draws")
            raise Incomplete(f"hold-out judge {name!r} gave no score at all; {why}")


def save_result(folder: Path, result: HoldoutResult) -> None:
    """Write an evaluation into a folder of its own, so that a resumed run still has its pairs."""
    write_json(folder / f"step-{result.step:06d}.json", msgspec.to_builtins(result))


def read_results(folder: Path, last: int) -> list[HoldoutResult]:
    """The evaluations up to a step, in order; [] if there is no folder.

    Raises:
        BadInput: a file is damaged.
    """
    paths = sorted(folder.glob("step-*.json"))
    found = [convert(read_json(path), HoldoutResult, str(path)) for path in paths]
    return sorted((r for r in found if r.step <= last), key=lambda result: result.step)


def check_sample(folder: Path, holdout: Holdout, *, is_first: bool) -> None:
    """Remember what is drawn and judged, or see that it is what the evaluations in the folder are of.

    Raises:
        BadInput: they are of another sample, with which nothing can be paired.
    """
    path, sample = folder / "sample.json", holdout.sample()
    if is_first or not path.is_file():
        write_json(path, sample)
    else:
        earlier = convert(read_json(path), dict[str, Json], str(path))
        refuse_others(earlier, sample, path)


def _own_protocol(recipe: Recipe, native_resolution: int) -> DrawProtocol:
    start = {"name": "custom", "resolution": native_resolution}
    return DrawProtocol(**joined_protocol(start, recipe.protocol))


def _judges(recipe: Recipe, table: HoldoutTable, where: str, key: str) -> tuple[RewardSpec, ...]:
    """The benchmark's judge with the benchmark's options, then further judges or scorers with none."""
    own, device = str(recipe.settings.get("judge", "")), {"device": table.device}
    if not own and not table.judges:
        raise BadInput(f"{where}: the benchmark {recipe.name!r} has no judge: name one in {key}.judges")
    tables: dict[str, dict[str, Any]] = {name: dict(device) for name in table.judges}
    if own:
        tables = {own: {**device, "options": dict(recipe.judge_options)}} | {
            name: options for name, options in tables.items() if name != own
        }
    return tuple(reward_specs(tables, f"{where}: {key}"))
