"""The weights of scorers: what is declared of them, and what the docs say of it."""

from pathlib import Path

import pytest

from sar_eval.tensors.published_weights import FOR_SCORERS, WEIGHTS
from sar_eval.tensors.remote_file import HubFolder, in_words

DOCS = (Path(__file__).parents[3] / "docs" / "weights.md").read_text()


@pytest.mark.parametrize("name", FOR_SCORERS)
def test_the_docs_say_size_and_licence(name: str) -> None:
    weights = WEIGHTS[name]
    if isinstance(weights, HubFolder):
        size, first = in_words(weights.size, exact=False), weights
    else:
        exact, first = all(file.exact for file in weights), weights[0]
        size = in_words(sum(file.size for file in weights), exact)
    assert f"| `{name}` | {first.purpose} | {size} | {first.licence} |" in DOCS.splitlines()


@pytest.mark.parametrize("name", FOR_SCORERS)
def test_several_files_lie_in_one_folder(name: str) -> None:
    weights = WEIGHTS[name]
    if not isinstance(weights, HubFolder):
        assert len({file.name.partition("/")[0] for file in weights}) == 1
        assert len({file.name for file in weights}) == len(weights)
        assert all(file.url.startswith("https://") and file.licence for file in weights)


def test_no_two_names_share_a_place() -> None:
    places = [file.name for w in WEIGHTS.values() if not isinstance(w, HubFolder) for file in w]
    assert len(set(places)) == len(places)
