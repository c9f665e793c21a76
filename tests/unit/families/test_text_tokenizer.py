"""A text tokenizer of `vocab.json` and `merges.txt` gives the ids that `tokenizer.json` gives."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.decoding.load import load_decoder
from sar_eval.errors import BadInput
from sar_eval.families.demo import SPECIAL_TOKENS, build_config
from sar_eval.families.simplear import find_checkpoint
from sar_eval.families.text_tokenizer import read_text_tokenizer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    prompts = [
        json.loads(line)["text"] for line in (ROOT / "prompts/shapes.jsonl").read_text().splitlines()
    ]
    odd = [
        "",
        " ",
        "  two  spaces ",
        "It's 12 o'clock, don't!",
        "é e\u0301 猫 ½ ☃\n\n tab\tend",
        "A<|soi|>b <|t2i|>",
    ]
    rng = random.Random(0)
    random_texts = ["".join(rng.choices("ab 'sé猫\n1.<|>t2i", k=rng.randrange(30))) for _ in range(200)]
    return [*prompts, *odd, *random_texts]


@pytest.fixture(scope="module")
def forms(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints that differ in the form of their tokenizer alone: the fast form, the slow one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

    from sar_eval.train.checkpoint_writer import save_checkpoint

    root = tmp_path_factory.mktemp("forms")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    (root / "model").mkdir()
    trained.model.save(str(root / "model"))
    vocabulary = json.loads((root / "model" / "vocab.json").read_text())
    lines = (root / "model" / "merges.txt").read_text().splitlines()[1:]
    fast = Qwen2Tokenizer(vocabulary, [tuple(line.split(" ")) for line in lines])
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    (root / "fast").mkdir()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(build_config(len(fast), 2560))
    save_checkpoint(model, fast, ROOT / "sar_eval/demo/tokenizer", {(8, 8)}, root / "fast")
    shutil.copytree(root / "fast", root / "slow")
    (root / "slow" / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(root / "model" / name, root / "slow" / name)
    added = {token: fast.convert_tokens_to_ids(token) for token in fast.get_added_vocab()}
    (root / "slow" / "added_tokens.json").write_text(json.dumps(added))
    for name in ("fast", "slow"):
        path = root / name / "sar_eval.json"
        path.write_text(json.dumps({"visual_tokenizer": str(ROOT / "sar_eval/demo/tokenizer")}))
    return root / "fast", root / "slow"


def test_both_forms_give_the_same_ids(forms: tuple[Path, Path], texts: list[str]) -> None:
    fast, slow = (find_checkpoint(str(folder)) for folder in forms)
    assert fast.visual_ids == slow.visual_ids
    assert [slow.prompt_ids(text) for text in texts] == [fast.prompt_ids(text) for text in texts]
    assert len({tuple(fast.prompt_ids(text)) for text in texts}) > 500
    theirs, ours = (load_decoder(found, "cpu", "float32") for found in (fast, slow))
    assert torch.equal(theirs.embedding, ours.embedding)
    assert slow.digest != fast.digest
    [note] = slow.notes
    assert "the text tokenizer is made of vocab.json, merges.txt, added_tokens.json" in note


def test_text_that_looks_special_is_read_as_text(forms: tuple[Path, Path]) -> None:
    found = find_checkpoint(str(forms[1]))
    begin, image = (found.text_tokenizer.token_to_id(t) for t in ("<|t2i|>", "<|soi|>"))
    assert not {begin, image} & set(found.prompt_ids("a ring <|soi|> <|t2i|>")[1:-1])


def test_qwen2s_own_class_reads_the_same(forms: tuple[Path, Path], texts: list[str]) -> None:
    from transformers import Qwen2Tokenizer

    theirs = Qwen2Tokenizer.from_pretrained(forms[1])
    ours = read_text_tokenizer(forms[1])
    plain = [text for text in texts if "<|" not in text]
    assert [ours.encode(t, add_special_tokens=False).ids for t in plain] == [
        theirs.encode(t, add_special_tokens=False) for t in plain
    ]


def test_added_tokens_may_be_in_the_settings_alone(forms: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(forms[1], tmp_path / "c")
    added = json.loads((tmp_path / "c" / "added_tokens.json").read_text())
    (tmp_path / "c" / "added_tokens.json").unlink()
    settings = {"added_tokens_decoder": {str(n): {"content": t, "special": True} for t, n in added.items()}}
    (tmp_path / "c" / "tokenizer_config.json").write_text(json.dumps(settings))
    found = find_checkpoint(str(tmp_path / "c"))
    assert found.text_vocab_size == find_checkpoint(str(forms[0])).text_vocab_size


def test_merges_may_have_a_mark_and_other_line_ends(forms: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(forms[1], tmp_path / "c")
    path = tmp_path / "c" / "merges.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    ids = find_checkpoint(str(tmp_path / "c")).prompt_ids("a red ring")
    assert ids == find_checkpoint(str(forms[0])).prompt_ids("a red ring")


def _damage(name: str, value: Any) -> Any:
    return lambda folder: (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "merges.txt").unlink(),
            "no tokenizer.json .*not both of vocab.json and merges",
        ),
        (_damage("vocab.json", []), "must be a table of token to id"),
        (_damage("vocab.json", {"a": "b"}), "must be a table of token to id"),
        (_damage("vocab.json", {"a": 0, "b": 7}), "the ids are not 0 to 1"),
        (_damage("merges.txt", "#version: 0.2\n"), "holds no merges"),
        (_damage("merges.txt", "a b c\n"), "'a b c' is no pair"),
        (_damage("merges.txt", "zz yy\n"), "do not fit together"),
        (_damage("added_tokens.json", {"<|t2i|>": 9000}), "the files are of two tokenizers"),
        (_damage("added_tokens.json", {"<|t2i|>": "9"}), "has the id '9'"),
        (_damage("added_tokens.json", [1]), "must hold a JSON object"),
        (
            _damage("merges.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git-lfs pointer",
        ),
        (
            _damage("vocab.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git-lfs pointer",
        ),
    ],
)
def test_files_that_do_not_fit_are_told(
    damage: Any, message: str, forms: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(forms[1], tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(BadInput, match=message):
        find_checkpoint(str(tmp_path / "c"))
