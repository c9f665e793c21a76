"""A suite of others with made-up prompts and judge's texts, declared in a folder of its own."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_eval import suites

SYSTEM = "Judge this picture."
USER = 'Text: "{prompt}"\nWhy: {explanation}\nAnswer with {"score": 0}'
PROGRAM = '''
"""A program that ends the world when it runs."""
raise SystemExit("it ran")

def build(row, marker):
    head = "Judge " + "this picture."
    return [head, f"""Text: "{row['Prompt']}"\\nWhy: {row["Explanation"]}\\nAnswer with {{"score": 0}}"""]

TEMPLATES = ["""
    Is it so? ##QUESTIONS##
    """, 5, b"bytes"]
'''
DECLARATION = f'''
from sar_eval.documents import read_json
from sar_eval.suites.source import ImportedSuite, SuiteSource, Template, official, official_file
from sar_eval.types import Prompt

def convert(source):
    rows = read_json(official_file(source, "rows.json"))
    prompts = [Prompt(str(row["id"]), row["Prompt"], row["tag"], {{"why": row["why"]}}) for row in rows]
    return ImportedSuite(prompts, ("rows.json: a note",), "with 2 reasons")

SOURCE = SuiteSource(
    title="Tiny bench",
    licence="no licence",
    files=(
        official("tiny", "https://example.org/tiny/rows.json", "prompts"),
        official("tiny", "https://example.org/tiny/judge.py", "the judge's texts"),
    ),
    convert=convert,
    takes="the folder tiny",
    prompts=2,
    templates=(
        Template("system", "judge.py", "{hashlib.sha256(SYSTEM.encode()).hexdigest()}"),
        Template(
            "user", "judge.py", "{hashlib.sha256(USER.encode()).hexdigest()}",
            holes={{"row['Prompt']": "prompt", "row['Explanation']": "explanation"}},
        ),
        Template(
            "questions", "judge.py", "{hashlib.sha256(b"Is it so? ##QUESTIONS##").hexdigest()}",
            markers={{"##QUESTIONS##": "questions"}},
        ),
    ),
)
'''
ROWS = [
    {"id": 1, "Prompt": "a red ball", "tag": "colour", "why": "red"},
    {"id": 2, "Prompt": "zwei B\u00e4lle", "tag": "", "why": "two"},
]


@contextmanager
def declared(folder: Path) -> Iterator[None]:
    """The suite `tiny` is declared in `folder`, which is of the package's path meanwhile."""
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "source.py").write_text(DECLARATION)
    suites.__path__.append(str(folder))
    try:
        yield
    finally:
        suites.__path__.remove(str(folder))
        for name in ("sar_eval.suites.tiny", "sar_eval.suites.tiny.source"):
            sys.modules.pop(name, None)
