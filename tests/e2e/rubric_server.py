"""A local server with OpenAI's interface that judges pictures by their colour, and fails as it is told."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fake_chat_server as fake
import numpy as np
from PIL import Image

from sar_eval.judges.rubric import RubricJudge
from sar_eval.types import Generation, Prompt, Verdict

SCORE = {"score": r"score\s*:\s*(\d+)"}


class RubricServer(fake.FakeChatServer):
    """Replies `Score: 1` if the prompt, the first line of the text, names the picture's strongest channel.

    Attributes:
        replies: by the prompt, the replies to it, one a request; the last one is repeated.
    """

    replies: dict[str, list[str]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(replies={}, **attributes)
        self.RequestHandlerClass = RubricHandler


class RubricHandler(fake.Handler):
    server: RubricServer

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = {part["type"]: part for part in body["messages"][-1]["content"]}
        prompt = parts["text"]["text"].split("\n")[0]
        with self.server.lock:
            self.server.requests.append(body)
            self.server.counts[prompt] += 1
            attempt = self.server.counts[prompt]
            stop = self.server.stops_after and len(self.server.requests) > self.server.stops_after
        if stop:
            self.server.stop()
            self.close_connection = True
        elif replies := self.server.replies.get(prompt):
            self.respond(said(replies[min(attempt, len(replies)) - 1]))
        elif not self.fail(prompt, attempt):
            matches = picture_color(parts["image_url"]["image_url"]["url"]) == prompt
            self.respond(said(f"Score: {int(matches)}"))


def said(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    if text.endswith("..."):
        finish_reason = "length"
    return {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}


def picture(url: str) -> tuple[str, bytes]:
    """MIME type and bytes of a data URL."""
    kind, _, data = url.partition(",")
    return kind.removeprefix("data:").removesuffix(";base64"), base64.b64decode(data)


def picture_color(url: str) -> str:
    with Image.open(io.BytesIO(picture(url)[1])) as image:
        return fake.COLORS[int(np.asarray(image.convert("RGB")).mean((0, 1)).argmax())]


def encoded(color: str, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(fake.pixels(color)).save(buffer, kind, **options)
    return buffer.getvalue()


@contextmanager
def serving(**attributes: Any) -> Iterator[RubricServer]:
    with fake.serving_as(RubricServer(**attributes)) as server:
        yield server


def judge(
    server: RubricServer, *prompts: str | Prompt, image: bytes | None = None, **options: Any
) -> list[Verdict]:
    """Verdicts on a red picture of each prompt, in their order."""
    asked = [p if isinstance(p, Prompt) else Prompt(f"p{i}", p) for i, p in enumerate(prompts)]
    data = encoded("red") if image is None else image
    items = [(p, Generation(f"{p.id}/0", 0, image=data)) for p in asked]
    with RubricJudge(**rubric_options(server, **options)) as rubric:
        verdicts = {verdict.key: verdict for verdict in rubric.judge(items)}
    return [verdicts[f"{p.id}/0"] for p in asked]


def rubric_options(server: RubricServer, **options: Any) -> dict[str, Any]:
    known = {"url": server.url, "model": "judge-7b", "retries": 2, "timeout_s": 5.0}
    text = {"template": "{prompt}\nGive a score.", "numbers": SCORE}
    return {**known, **({} if "reader" in options else text), **options}
