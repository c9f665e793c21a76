"""Prompt ids of Janus and Janus-Pro, their negative row, and the templates of models trained from them.

The text is `USER: TEXT\\n\\nASSISTANT:<begin_of_image>`, with a begin-of-sentence id before it
(deepseek-ai/Janus, generation_inference.py and janus/models/processing_vlm.py, commit 1daa72f). Special
tokens that are written inside a prompt are parsed as such, because the original's tokenizer parses them;
ids are equal to the original's.

The ids come from `tokenizer.json` by the library `tokenizers`: transformers' AutoTokenizer builds another
tokenizer of the original's folder, with wrong ids for most texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import read_bytes, read_json
from sar_eval.errors import BadInput
from sar_eval.families.text_tokenizer import (
    FAST,
    SETTINGS,
    SPECIAL,
    read_text_tokenizer,
    text_ids,
    token_ids,
)

BEGIN_OF_IMAGE = "<begin_of_image>"
PAD = "<｜▁pad▁｜>"  # noqa: RUF001  (these bars are the token's)
BEGIN = "<｜begin▁of▁sentence｜>"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Roles:
    """What stands before the prompt and before the picture."""

    user: str
    assistant: str


PRO_ROLES = Roles("<|User|>", "<|Assistant|>")
WORD_ROLES = Roles("User", "Assistant")  # of Janus-1.3B


@dataclass(frozen=True, slots=True)
class JanusPreset:
    """How the authors of a checkpoint put a prompt to it.

    Attributes:
        source: file that says so.
        template: with `{}` for the prompt.
        removed: phrases taken out of the prompt before that, in this order, then blanks at its ends.
        roles: None for those that the checkpoint's files say, see `find_roles`.
        differs: what the authors' run does besides, that drawing from these ids does not; "" for nothing.
    """

    source: str
    template: str = "{}"
    removed: tuple[str, ...] = ()
    roles: Roles | None = None
    differs: str = ""

    def text(self, prompt: str) -> str:
        """The user's message."""
        for phrase in self.removed:
            prompt = prompt.replace(phrase, "")
        return self.template.format(prompt.strip() if self.removed else prompt).strip()


# Of T2I-R1 there is none: it writes up to 512 tokens of text first, and what it draws without them is not
# its score.
PRESETS: Mapping[str, JanusPreset] = {
    "janus": JanusPreset("deepseek-ai/Janus, README.md: the roles as the checkpoint's files say"),
    "janus-pro": JanusPreset("deepseek-ai/Janus, README.md, Janus-Pro", roles=PRO_ROLES),
    "janus-1.3b": JanusPreset("deepseek-ai/Janus, README.md, Janus", roles=WORD_ROLES),
    "focusdiff": JanusPreset("wendell0218/FocusDiff, inference/infer_paircomp.py", roles=PRO_ROLES),
    "janus-pro-r1": JanusPreset(
        "wendell0218/Janus-Pro-R1, inference/t2i.py",
        roles=PRO_ROLES,
        differs="its script takes the likeliest code at each step (img_top_k=1), keeps blanks at the ends",
    ),
    "reasongen-r1-geneval": JanusPreset(
        "Franklin-Zhang0/ReasonGen-R1, benchmark/generate_inference_geneval.py",
        template="A photo of {}. Output a richly detailed prompt: ",
        removed=("A photo of", "a photo of"),
        roles=PRO_ROLES,
        differs="its script writes up to 1,024 tokens of text after the template, then draws",
    ),
}


@dataclass(frozen=True, slots=True)
class JanusPrompts:
    """The text side of a checkpoint.

    Attributes:
        tokenizer: its `tokenizers.Tokenizer`.
        roles: before the prompt and before the picture.
        roles_because: which file says so.
        begin: id of the begin of the sentence.
        begin_of_image: id that pictures follow.
        pad: id that stands in the negative row.
    """

    tokenizer: Any
    roles: Roles
    roles_because: str
    begin: int
    begin_of_image: int
    pad: int

    def template(self, prompt: str, preset: JanusPreset = PRESETS["janus"]) -> str:
        """The text that is tokenized, the begin-of-image token at its end.

        An empty message leaves out its blank and the two line ends, as the original's does.
        """
        message, roles = preset.text(prompt), preset.roles or self.roles
        turn = f" {message}\n\n" if message else ""
        return f"{roles.user}:{turn}{roles.assistant}:{BEGIN_OF_IMAGE}"

    def prompt_ids(self, prompt: str, preset: JanusPreset = PRESETS["janus"]) -> list[int]:
        """Ids of the prompted row.

        Raises:
            BadInput: the prompt has a lone surrogate.
        """
        return [self.begin, *text_ids(self.tokenizer, self.template(prompt, preset))]

    def negative_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        """Ids of the negative row of a prompted one: as long, pads between its first and its last id.

        They depend on the prompt's length alone. The pads are attended like any other token. A begin of
        sentence or of image that the prompt itself has is a pad here, too.
        """
        return [prompt_ids[0], *[self.pad] * (len(prompt_ids) - 2), prompt_ids[-1]]


def read_janus_prompts(folder: Path) -> JanusPrompts:
    """The text side of a checkpoint's folder, under the original's or transformers' names.

    Raises:
        BadInput: a file is missing or unreadable, a token that pictures need is not in it, or the tokenizer
            is told to begin without its first id, so that the negative row would keep a word of the prompt.
    """
    if not (folder / FAST).is_file():
        raise BadInput(f"no {FAST} in {folder}: copy it there from the hub's repository of the checkpoint")
    tokenizer = read_text_tokenizer(folder)
    settings = _table(folder / SETTINGS)
    if settings.get("add_bos_token") is False:
        raise BadInput(
            f"{folder / SETTINGS} has add_bos_token false, by which the negative row would keep the first "
            "word of the prompt: get the hub's present file, or set it true"
        )
    begin = _text(settings.get("bos_token") or _table(folder / SPECIAL).get("bos_token")) or BEGIN
    ids = token_ids(tokenizer, (begin, BEGIN_OF_IMAGE, PAD), folder / FAST)
    return JanusPrompts(tokenizer, *find_roles(folder, tokenizer), *ids)


def find_roles(folder: Path, tokenizer: Any) -> tuple[Roles, str]:
    """The roles of a checkpoint's template, and which of its files says so.

    The original takes them from the script that calls it, and `sft_format` is "deepseek" for both kinds.
    Here the first of these decides: a chat template that writes `<|User|>` (transformers' repositories have
    one; a template without it may be that of the language model it was trained from); `sft_format`
    "deepseek_old", whose roles are words; a tokenizer with one token for each of the Pro roles; else words.
    What the hub's Janus-1.3B is by this was not seen: the presets `janus-1.3b` and `janus-pro` say it.
    """
    for path, text in _chat_templates(folder):
        if PRO_ROLES.user in text:
            return PRO_ROLES, f"the chat template in {path.name}"
    if _table(folder / "processor_config.json").get("sft_format") == "deepseek_old":
        return WORD_ROLES, "sft_format in processor_config.json"
    if all(tokenizer.token_to_id(role) is not None for role in (PRO_ROLES.user, PRO_ROLES.assistant)):
        return PRO_ROLES, f"the tokens {PRO_ROLES.user} and {PRO_ROLES.assistant} in {FAST}"
    return WORD_ROLES, f"no token {PRO_ROLES.user} in {FAST}"


def _chat_templates(folder: Path) -> list[tuple[Path, str]]:
    plain = folder / "chat_template.jinja"
    found = [(plain, read_bytes(plain).decode("utf-8", "replace"))] if plain.is_file() else []
    paths = [folder / name for name in ("chat_template.json", "processor_config.json", SETTINGS)]
    values = [(path, _table(path).get("chat_template")) for path in paths]
    return found + [(path, value) for path, value in values if isinstance(value, str) and value]


def _text(token: Any) -> str | None:
    """The text of a special token, which is written plainly or as a table."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _table(path: Path) -> dict[str, Any]:
    data = read_json(path) if path.is_file() else {}
    if not isinstance(data, dict):
        raise BadInput(f"{path} must hold a JSON object")
    return data
