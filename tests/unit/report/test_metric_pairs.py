"""Our metrics and the reference's side by side, in the terminal and in the report."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

from sar_eval.cli.progress import print_summary, quirk_table, score_table
from sar_eval.report.metric_pairs import QUIRKS_TITLE, has_reference, pair_metrics, quirk_effects
from sar_eval.report.page import write_report
from sar_eval.report.scores import quirk_rows, score_groups
from sar_eval.stages.summarize import summarize
from sar_eval.storage.schemas import image_digest, verdict_row
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import DrawProtocol, Metric, Prompt, Summary, Verdict
from tests.stored_runs import begin_run, store_generations

METRICS = (
    Metric("overall", 79.66, 78.0, 81.234, 4260, 100),
    Metric("category/entity", 88.1, 87.0, 89.0, 9000, 100),
    Metric("detail/entity - whole", 90.0, 89.0, 91.0, 4000, 100),
    Metric("reference/overall", 80.5, 79.0, 82.0, 4256, 100),
    Metric("reference/category/mood", 50.0, 40.0, 60.0, 10, 100),
    Metric("reference/category/entity", None, None, None, 0, 100),
    Metric("quirk/only_exact_yes", 0.125, 0.05, 0.25, 7, 100),
    Metric("quirk/first_row_skipped", -0.02, None, None, 1, 100),
)


def _printed(table: object) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=120, color_system=None).print(table)
    return buffer.getvalue()


def _summary(*metrics: Metric) -> Summary:
    return Summary("d", "dpg", "mine", {}, 12, 12, 12, 0, metrics, (), {})


def test_metrics_of_one_name_are_paired() -> None:
    assert has_reference(METRICS)
    pairs = [(p.name, p.ours is not None, p.reference is not None) for p in pair_metrics(METRICS)]
    assert pairs == [
        ("overall", True, True),
        ("category/entity", True, True),
        ("category/mood", False, True),
        ("detail/entity - whole", True, False),
    ]
    assert [name for name, _ in quirk_effects(METRICS)] == ["only exact yes", "first row skipped"]


def test_the_table_has_both_scores() -> None:
    rows = [" ".join(line.split()) for line in _printed(score_table(_summary(*METRICS))).splitlines()]
    cells = {row[1:].split("│")[0].strip(): row for row in rows}
    assert any("corrected" in row and "reference" in row for row in rows)
    assert "79.66 │ 78.00-81.23 │ 4260 │ 80.50 │ 79.00-82.00" in cells["overall"]
    assert "88.10 │ 87.00-89.00 │ 9000 │ - │ -" in cells["entity"]
    assert "- │ - │ 0 │ 50.00 │ 40.00-60.00" in cells["mood"]
    assert not any("quirk" in row for row in rows)


def test_quirks_have_their_own_table() -> None:
    text = _printed(quirk_table(_summary(*METRICS)))
    assert "What each quirk of the official script changes" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "│ only exact yes │ +0.12 │ +0.05 to +0.25 │ 7 │" in rows
    assert "│ first row skipped │ -0.02 │ - │ 1 │" in rows


def test_metrics_without_reference(capsys, tmp_path) -> None:
    metrics = (Metric("overall", 0.5, 0.4, 0.6, 12), Metric("task/two_object", 0.25, None, None, 4))
    text = _printed(score_table(_summary(*metrics)))
    assert "0.500" in text
    assert "0.400 to 0.600" in text
    assert "0.250" in text
    assert "reference" not in text
    print_summary(_summary(*metrics), tmp_path, None)
    assert "quirk" not in capsys.readouterr().out
    print_summary(_summary(*METRICS), tmp_path, None)
    assert "only exact yes" in capsys.readouterr().out


def test_the_reports_rows_have_both_scores() -> None:
    axis, groups = score_groups(METRICS)
    assert axis == 100
    rows = {row.label: row for _, group in groups for row in group}
    assert [title for title, _ in groups] == ["", "category", "detail"]
    overall = rows["Overall"]
    assert (overall.value, overall.interval, overall.bar) == ("79.66", "[78.00, 81.23]", 79.66)
    assert (overall.reference, overall.reference_interval) == ("80.50", "[79.00, 82.00]")
    assert (rows["mood"].value, rows["mood"].bar, rows["mood"].reference) == ("\N{EN DASH}", None, "50.00")
    assert quirk_rows(METRICS) == [
        ("only exact yes", "+0.12", "[+0.05, +0.25]", 7),
        ("first row skipped", "-0.02", "", 1),
    ]


@pytest.mark.parametrize(("scale", "axis"), [(1, 1.0), (100, 100.0)])
def test_the_axis_ends_at_the_scale(scale, axis) -> None:
    assert score_groups([Metric("overall", 0.5, 0.4, 0.6, 3, scale)])[0] == axis


def test_summary_and_report_have_scale_reference_and_quirks(tmp_path) -> None:
    prompts = [
        Prompt(f"p{n}", "a ring", checks=write_questions([Question(1, "?"), Question(2, "?", (1,))]))
        for n in range(3)
    ]
    protocol = DrawProtocol("simplear", 64)
    settings = {"benchmark": "dpg", "fold": "dpg", "judge": "vqa", "images_per_prompt": 1}
    spec, folder = begin_run(tmp_path, prompts, protocol=protocol, **settings)
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    store_generations(spec, folder, {f"{prompt.id}/0": image.getvalue() for prompt in prompts})
    answers = [{"id": 1, "answer": "yes.", "yes": True}, {"id": 2, "answer": "yes", "yes": True}]
    part = folder.generations.parts()[0]
    judged = image_digest(image.getvalue())
    rows = [
        verdict_row(
            Verdict(f"{prompt.id}/0", "vqa", "1", score=1.0, evidence={"questions": answers}),
            spec.judge_digest,
            judged,
        )
        for prompt in prompts
    ]
    folder.write_verdicts("vqa", 0, rows, spec.judge_digest, part)

    summarize(spec, folder)
    stored = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    overall = next(metric for metric in stored if metric["name"] == "overall")
    assert (overall["value"], overall["scale"]) == (100, 100)
    page = write_report(spec, folder).read_text()
    for text in ("Corrected", "Reference", QUIRKS_TITLE, "Only exact yes", "+100.00"):
        assert text in page
    own = page.split('<tr class="first own">')[1].split("</tr>")[0]
    assert '<td class="number value">100.00</td>' in own
