"""`sar-eval distance`: what it prints, and how it ends."""

import json

import pytest

from tests.small_inception import save_inception, save_pictures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("distance")
    save_inception(root / "weights.pth")
    save_pictures(root / "a", 3, 1)
    save_pictures(root / "b", 2, 2)
    return root


def _weights(root):
    return "--weights", root / "weights.pth", "--device", "cpu"


def test_a_table_with_numbers_and_versions(sar_eval_here, root) -> None:
    code, printed = sar_eval_here("distance", root / "a", root / "b", "--metric", "kid", *_weights(root))
    assert code == 0
    assert "95 % interval" in printed
    assert "kid: version kid-1+resize-clean+" in printed
    assert "standard error of subsets" in printed


def test_json_and_saved_statistics(sar_eval_here, root, tmp_path) -> None:
    file = tmp_path / "a.npz"
    code, _ = sar_eval_here("distance", root / "a", "--save-statistics", file, *_weights(root))
    assert code == 0
    answers = []
    for first in (root / "a", file):
        code, printed = sar_eval_here("distance", first, root / "b", "--json", *_weights(root))
        assert code == 0
        answers.append(json.loads(printed)["metrics"])
    assert answers[0] == answers[1]
    assert answers[0][0]["n"] == [3, 2]


def test_an_unreadable_picture_ends_in_3_unless_partial(sar_eval_here, root, tmp_path) -> None:
    save_pictures(tmp_path / "a", 2, 1)
    (tmp_path / "a" / "\x1b[2Jbad.png").write_bytes(b"no picture")
    words = ("distance", tmp_path / "a", root / "b", *_weights(root))
    code, printed = sar_eval_here(*words)
    assert code == 3
    assert "INCOMPLETE" in printed
    assert "\x1b" not in printed
    assert "bad.png" in printed
    assert "fid-clean" not in printed
    code, printed = sar_eval_here(*words, "--partial")
    assert code == 0
    assert "PARTIAL" in printed
    assert "bad.png" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "fid"], "no metric 'fid': fid-clean"),
        (["--metric", "fid-clean", "--metric", "fid-torch", "--weights", "x"], "inception-clean=PATH"),
        (["--weights", "dinov2-l14=x"], "need inception-clean alone"),
        (["--weights", "none.pth"], "no Inception weights"),
        ([], "sar-eval fetch scorers inception-clean"),
    ],
)
def test_bad_words(sar_eval_here, root, tmp_path, monkeypatch, words, message) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    code, printed = sar_eval_here("distance", root / "a", root / "b", *words)
    assert code == 2
    assert message in " ".join(printed.split())


def test_one_set_alone_is_asked_for_another(sar_eval_here, root) -> None:
    code, printed = sar_eval_here("distance", root / "a")
    assert code == 2
    assert "name a second set" in printed
