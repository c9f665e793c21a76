"""What goes to the hub is read back by the hub's own functions."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub._eval_results import parse_eval_result_entries

from sar_eval.errors import BadInput, Incomplete
from sar_eval.stages.eval_results import write_eval_results
from sar_eval.types import Metric, Prompt, Summary
from tests.stored_runs import make_spec

METRICS = (
    Metric("overall", 0.6125, 0.58, 0.64, 553),
    Metric("task/counting", 0.5, 0.4, 0.6, 80),
    Metric("split/unseen", None, None, None, 0),
)
SPEC = replace(make_spec([Prompt("a", "a star")]), benchmark="geneval", checkpoint="org/my-model")
README = """---
license: mit
tags: [text-to-image]
model-index:
- name: Mine
  results:
  - task: {type: text-generation}
    dataset: {type: gsm8k, name: GSM8K}
    metrics: [{type: accuracy, value: 0.7}]
---
# Mine

A model: ü.
"""


def summary(**changes) -> Summary:
    facts = {"protocol": {}, "expected": 8, "generated": 8, "judged": 8, "failed": 0, "versions": {}}
    facts |= {"spec_digest": SPEC.digest, "benchmark": "geneval", "checkpoint": SPEC.checkpoint}
    return Summary(**(facts | {"metrics": METRICS, "problems": ()} | changes))


def test_the_headline_is_an_entry_of_the_hubs_kind(tmp_path: Path) -> None:
    entries, _ = write_eval_results(SPEC, summary(), tmp_path / "repo", "org/GenEval:overall")
    assert entries == tmp_path / "repo" / ".eval_results" / "geneval.yaml"
    [entry] = parse_eval_result_entries(yaml.safe_load(entries.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("org/GenEval", "overall", 0.6125)
    for words in ("guidance 1", "seed 0", "4 images per prompt", "95 % interval 0.580 to 0.640"):
        assert words in entry.notes


def test_all_figures_and_intervals_are_in_the_model_index(tmp_path: Path) -> None:
    write_eval_results(SPEC, summary(), tmp_path, "org/GenEval")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.model_name == "my-model"
    found = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        "overall": 0.6125,
        "task/counting": 0.5,
    }
    assert found["task/counting"].metric_args == {"low": 0.4, "high": 0.6, "confidence": 0.95, "n": 80}
    assert {result.task_type for result in found.values()} == {"text-to-image"}
    assert {result.dataset_type for result in found.values()} == {"org/GenEval"}


def test_what_a_readme_says_otherwise_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(README.replace("\n", "\r\n").encode())
    write_eval_results(SPEC, summary(), tmp_path)
    once = (tmp_path / "README.md").read_bytes()
    again = replace(METRICS[0], value=0.7)
    write_eval_results(SPEC, summary(metrics=(again, METRICS[1])), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    figures = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert figures == {
        ("GSM8K", "accuracy"): 0.7,
        ("geneval", "overall"): 0.7,
        ("geneval", "task/counting"): 0.5,
    }
    assert (card.data.model_name, card.data.license, card.data.tags) == ("Mine", "mit", ["text-to-image"])
    assert once.endswith("# Mine\r\n\r\nA model: ü.\r\n".encode())


def test_an_incomplete_run_writes_nothing(tmp_path: Path) -> None:
    for changes in ({"failed": 1, "partial": True}, {"generated": 7, "metrics": ()}, {"metrics": ()}):
        with pytest.raises(Incomplete, match="nothing is written"):
            write_eval_results(SPEC, summary(**changes), tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# A project", "has no metadata"),
        ("---\na: [\n---\n", "cannot be read"),
        ("---\n- a\n---\n", "dict"),
    ],
)
def test_a_readme_that_is_no_model_card_is_left_alone(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(BadInput, match=message):
        write_eval_results(SPEC, summary(), tmp_path)
    assert (tmp_path / "README.md").read_text() == text
    assert not (tmp_path / ".eval_results").exists()


@pytest.mark.parametrize("name", ["", "a/b/c", "org/x y", "org/x:", "é"])
def test_a_name_that_no_dataset_has_is_refused(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(BadInput, match="--eval-dataset"):
            write_eval_results(SPEC, summary(), tmp_path, name)
    else:
        entries, _ = write_eval_results(replace(SPEC, benchmark="my bench"), summary(), tmp_path, name)
        assert entries.name == "my-bench.yaml"
