"""Specs: recipe and flags in, one digest out; wrong values reported before anything is drawn."""

from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, UnknownName
from sar_eval.families.prompting import PRESETS
from sar_eval.recipe import load_recipe
from sar_eval.spec import RunSpec, run_folder
from sar_eval.stages.resolve import resolve

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "colourful.toml"


def _recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(f"suite = 'shapes.jsonl'\n{text}")
    return path


def test_flags_override_the_recipe_and_show_in_the_protocols_name() -> None:
    plain = resolve(load_recipe("shapes"), "demo:sft", {})
    other = resolve(load_recipe("shapes"), "demo:sft", {"guidance": 7.0, "images_per_prompt": 2})
    same = resolve(load_recipe("shapes"), "demo:sft", {"guidance": plain.protocol.guidance, "top_k": None})
    assert (plain.protocol.name, other.protocol.name) == ("shapes", "shapes+")
    assert (other.protocol.guidance, other.images_per_prompt) == (7.0, 2)
    assert same == plain
    assert other.digest != plain.digest


def test_the_digest_knows_what_decides_the_images(spec: RunSpec) -> None:
    same = [
        {"judge": "other"},
        {"batch_size": 1},
        {"benchmark": "x"},
        {"protocol": replace(spec.protocol, name="renamed")},
        {
            "engine_options": {"speculate": True, "window": 4, "image_format": "webp"},
            "engine_speed_options": NativeEngine.speed_options,
        },
    ]
    other = [
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"checkpoint_digest": "1" * 16},
        {"suite_digest": "1" * 16},
        {"engine_version": "2"},
        {"protocol": replace(spec.protocol, guidance=1.0)},
        {"protocol": replace(spec.protocol, full_vocab=True)},
        {"protocol": replace(spec.protocol, min_p=0.1)},
        {"engine_options": {"quantization": "fp8"}},
    ]
    assert {replace(spec, **change).digest for change in same} == {spec.digest}
    assert len({replace(spec, **change).digest for change in other} | {spec.digest}) == len(other) + 1


def test_the_judges_digest_knows_its_version_and_options(spec: RunSpec) -> None:
    changes = [{"judge_version": "2"}, {"judge_options": {"threshold": 0.7}}, {"judge": "other"}]
    assert len({replace(spec, **change).judge_digest for change in changes} | {spec.judge_digest}) == 4
    moved = {**spec.judge_options, "url": "elsewhere", "weights": "/elsewhere"}
    known = {"judge_speed_options": ("url",), "judge_path_options": ("weights",)}
    assert replace(spec, judge_options=moved, **known).judge_digest == spec.judge_digest
    assert replace(spec, judge_options=moved).judge_digest != spec.judge_digest


def test_an_option_is_about_speed_only_for_the_engine_that_says_so(spec: RunSpec) -> None:
    def digest(engine: str, **options: object) -> str:
        old = spec.to_json() | {"engine": engine, "engine_options": options}
        del old["engine_speed_options"]  # as version 0.1.0 wrote it: the engine is asked
        return RunSpec.from_json(old).digest

    assert digest("vllm", rounding=0.3, max_num_seqs=8) == digest("vllm")
    assert digest("native", speculate=True) == digest("native")
    assert digest("native", rounding=0.3) != digest("native")
    assert digest("theirs.py:ENGINE", rounding=0.3) != digest("theirs.py:ENGINE")


def test_a_spec_comes_back_from_json(spec: RunSpec) -> None:
    assert RunSpec.from_json(spec.to_json()) == spec
    with pytest.raises(BadInput, match="another version of sar-eval"):
        RunSpec.from_json(spec.to_json() | {"new_field": 1})
    with pytest.raises(BadInput, match=r"run\.json, spec: .*missing required field `benchmark`"):
        RunSpec.from_json({})


def test_files_are_found_beside_the_recipe() -> None:
    spec = resolve(load_recipe(str(EXAMPLE)), "demo:sft", {})
    assert spec.judge == f"{EXAMPLE.parent / 'saturation.py'}:JUDGE"
    assert spec.judge_options == {"least": 0.2}


def test_another_judge_does_not_get_the_recipes_options() -> None:
    judge = f"{EXAMPLE.parent / 'saturation.py'}:JUDGE"
    assert resolve(load_recipe("shapes"), "demo:sft", {"judge": judge}).judge_options == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images_per_prompt = 2.5", "images_per_prompt is 2.5, it must be of kind int"),
        ("images_per_prompt = true", "images_per_prompt is True"),
        ("engine = 3", "engine is 3, it must be of kind str"),
        ("seed = 2024-01-01", "seed is datetime"),
        ("[protocol]\ntop_p = 'x'", "top_p is 'x', it must be of kind float"),
        ("[protocol]\nresolution = 64.0", "resolution is 64.0"),
        ("[protocol]\nprefix = 3", "prefix is 3"),
        ("judge = 'shapes'\n[judge_options]\nthreshold = 'x'", "threshold"),
        ("[protocol]\nresolution = 512", "has 256 positions"),
    ],
)
def test_values_of_the_wrong_kind(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        resolve(load_recipe(str(_recipe(tmp_path, line))), "demo:sft", {})


def test_a_fold_that_does_not_exist_is_reported_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown benchmark 'shaps'"):
        resolve(load_recipe(str(_recipe(tmp_path, "fold = 'shaps'"))), "demo:sft", {})


def test_no_name_leaves_the_folder_of_runs(spec: RunSpec) -> None:
    wild = replace(spec, benchmark="../../etc/x", checkpoint="/a/b/../..")
    assert run_folder(wild, Path("runs")).parent == Path("runs")
    assert run_folder(spec, Path("runs")).name == f"shapes-sft-{spec.digest[:8]}"


def test_a_preset_replaces_the_recipes_protocol() -> None:
    plain = resolve(load_recipe("shapes"), "demo:sft", {})
    preset = resolve(load_recipe("shapes"), "demo:sft", {"protocol": "simplear-paper"})
    changed = resolve(load_recipe("shapes"), "demo:sft", {"protocol": "simplear", "guidance": 3.0})
    assert (preset.protocol.name, changed.protocol.name) == ("simplear-paper", "simplear+")
    assert (preset.protocol.prefixes, preset.protocol.temperature) == ("simplear", 1.0)
    assert plain.protocol.resolution == preset.protocol.resolution == 64
    with pytest.raises(UnknownName, match="did you mean 'simplear'"):
        resolve(load_recipe("shapes"), "demo:sft", {"protocol": "simpelar"})


def test_the_recipe_geneval_pins_the_preset() -> None:
    pinned = dict(load_recipe("geneval").protocol)
    assert pinned.pop("name") == "simplear"
    assert pinned == {**PRESETS["simplear"], "temperature": 1.0}


def test_engine_options_that_do_not_fit_are_reported() -> None:
    with pytest.raises(BadInput, match=r"engine 'native' does not take the options \{'windw': 3\}"):
        resolve(load_recipe("shapes"), "demo:sft", {"engine_options": {"windw": 3}})


def test_an_unknown_set_of_prefixes_is_reported(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, "[protocol]\nprefixes = 'simplaer'\n")
    with pytest.raises(UnknownName, match="did you mean 'simplear'"):
        resolve(load_recipe(str(recipe)), "demo:sft", {})


def test_a_template_is_stored_and_hashed_only_where_it_is_set(spec: RunSpec) -> None:
    assert "template" not in spec.to_json()["protocol"]
    other = replace(spec, protocol=replace(spec.protocol, template="janus-pro"))
    assert other.to_json()["protocol"]["template"] == "janus-pro"
    assert RunSpec.from_json(other.to_json()) == other
    assert other.digest != spec.digest


def test_min_p_is_stored_and_hashed_only_where_it_is_set(spec: RunSpec) -> None:
    """Runs of earlier versions, which have no such key, keep their digest."""
    assert "min_p" not in spec.to_json()["protocol"]
    assert RunSpec.from_json(spec.to_json()) == spec
    other = replace(spec, protocol=replace(spec.protocol, min_p=0.1))
    assert other.to_json()["protocol"]["min_p"] == 0.1
    assert RunSpec.from_json(other.to_json()) == other
