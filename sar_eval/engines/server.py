"""Pictures of any model behind an OpenAI-compatible images server (vllm-omni, SGLang, a paid one).

The checkpoint is the name of a model at an address. Its digest has address, name and the version that the
server reports of itself: a weak identity, since a server may change its weights and tell nobody.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, ClassVar, Self

from sar_eval.clients.endpoint import key_hint
from sar_eval.clients.images_api import ImageReply, is_refusal, request_image, response_limit
from sar_eval.clients.json_client import JsonClient, RequestError
from sar_eval.clients.pace import Pace
from sar_eval.decoding.encode_images import encode
from sar_eval.documents import shorten
from sar_eval.engines._server_options import LABEL, SPEED_OPTIONS, Options, read_options
from sar_eval.errors import BadInput, Incomplete, SarEvalError
from sar_eval.families.prompting import prompt_texts
from sar_eval.images.files import MAX_BYTES, decode_image, is_lossy, is_transparent
from sar_eval.types import CheckpointFacts, Draw, DrawProtocol, Generation, Json

NATIVE_RESOLUTION = 1024
PROTOCOL_KEYS = ("resolution", "width", "height", "prefix", "prefixes", "negative_prompt")
# A recipe's texts are for the checkpoints that it was written for.
RECIPE_KEYS = ("resolution", "width", "height")
CHECK_TIMEOUT_S = 30.0  # of the requests before anything is drawn
SEED_BITS = 31  # servers take seeds of 32 or 64 bits, signed or not; all take these
LISTED_MODELS = 10  # in an error message
AGAIN = "Pictures up to here are stored: mend this and run the same command again to continue"


class ServerEngine:
    """One request a draw, several at once, from one worker."""

    version = "1"
    speed_options: ClassVar[tuple[str, ...]] = SPEED_OPTIONS
    most_workers = 1  # so that the limits of rate and concurrency hold

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        """Check the options; nothing is sent yet. `device`, `dtype` and `batch_size` are the server's own.

        Raises:
            BadInput: an option that is unknown, missing or out of range, or a key that is not set.
        """
        del device, dtype, batch_size
        self.options = read_options(options, checkpoint)
        self.model, self.protocol = checkpoint, protocol
        height, width = protocol.size
        # An uncompressed picture of 16 bits with alpha has 8 bytes a pixel.
        self.max_bytes = min(MAX_BYTES, (1 << 20) + 8 * height * width)
        self.client = _client(self.options, self.options.timeout_s, response_limit(self.max_bytes))
        self.failure: SarEvalError | None = None
        self._lock = threading.Lock()
        self._spent: Counter[str] = Counter()

    @staticmethod
    def find(checkpoint: str, options: Mapping[str, Json]) -> CheckpointFacts:
        """Ask the server whether it serves the model.

        Raises:
            BadInput: it does not respond, refuses the key, or lists other models.
        """
        known = read_options(options, checkpoint)
        client = _client(known, min(known.timeout_s, CHECK_TIMEOUT_S))
        notes = _check_model(client, checkpoint, known.api_key_env)
        if not known.send_seed:
            notes.append(f"{LABEL} sends no seed (send_seed=true does): each try is another picture")
        where = known.identity or known.address
        parts = json.dumps([where, checkpoint, _reported_version(client)])
        return CheckpointFacts(
            name=checkpoint,
            digest=hashlib.sha256(parts.encode()).hexdigest()[:16],
            native_resolution=NATIVE_RESOLUTION,
            protocol_keys=PROTOCOL_KEYS,
            recipe_keys=RECIPE_KEYS,
            notes=tuple(notes),
        )

    def __enter__(self) -> Self:
        self.failure = None
        self.client.stop_retrying.clear()
        self._requests = ThreadPoolExecutor(self.options.concurrency)
        self._endings = ThreadPoolExecutor(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop_retrying.set()
        self._requests.shutdown(cancel_futures=True)
        self._endings.shutdown(cancel_futures=True)

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """Draw; a draw that fails has an error instead of an image.

        Raises:
            BadInput: after what came, the server refuses the key, or has no such address or model.
            Incomplete: after what came, the server stopped responding, or wants to be paid.
        """
        for wave in self.begin(draws):
            yield from wave.result()

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        """Yield a future of each draw, then one that raises what stopped the engine, if anything did."""
        futures = [self._requests.submit(self._draw, draw) for draw in draws]
        yield from futures
        yield self._endings.submit(self._raise_failure, futures)

    def _raise_failure(self, futures: Sequence[Future[list[Generation]]]) -> list[Generation]:
        for future in futures:
            future.exception()  # waits
        if self.failure is not None:
            raise self.failure
        return []

    def _draw(self, draw: Draw) -> list[Generation]:
        if self.failure is not None:
            return []
        began = time.perf_counter()
        try:
            reply = request_image(self.client, self.payload(draw), self.max_bytes)
        except RequestError as error:
            return self._failed(draw, error)
        provenance = self._provenance(draw, reply)
        try:
            image = self._encoded(reply.data)
        except BadInput as error:
            return [Generation(draw.key, draw.seed, error=str(error), provenance=provenance)]
        known = {**provenance, **_marks(reply.data)}
        seconds = time.perf_counter() - began
        return [Generation(draw.key, draw.seed, image=image, elapsed_s=seconds, provenance=known)]

    def payload(self, draw: Draw) -> dict[str, Json]:
        """The fields of a draw's request."""
        prompt, negative = prompt_texts(self.protocol, draw)
        height, width = self.protocol.size
        fields = {
            "negative_prompt": negative if self.protocol.negative_prompt else None,
            "seed": seed_sent(draw) if self.options.send_seed else None,
            "guidance_scale": self.options.guidance,
            "num_inference_steps": self.options.steps,
        }
        return {
            "model": self.model,
            "prompt": prompt,
            "size": f"{width}x{height}",
            **{name: value for name, value in fields.items() if value is not None},
            **self.options.extra,
        }

    def _encoded(self, data: bytes) -> bytes:
        """The picture in our format, with the same pixels."""
        asked_height, asked_width = self.protocol.size
        try:
            pixels = decode_image(data)
        except BadInput as error:
            raise BadInput(f"the server's picture cannot be used: {error}") from error
        height, width, _ = pixels.shape
        if (width, height) != (asked_width, asked_height):
            raise BadInput(
                f"the server sent a picture of {width}x{height} pixels where {asked_width}x{asked_height} "
                "were asked for"
            )
        return encode(pixels, self.options.image_format)

    def _provenance(self, draw: Draw, reply: ImageReply) -> dict[str, Json]:
        """What was asked for and paid; `spent` is the sum since this worker began, with this picture."""
        counts: dict[str, float] = {"pictures": 1, **{f"usage.{k}": v for k, v in reply.usage.items()}}
        if self.options.price is not None:
            counts["cost"] = self.options.price
        with self._lock:
            self._spent.update(counts)
            spent = {name: round(value, 9) for name, value in self._spent.items()}
        known = {
            "seed_sent": seed_sent(draw) if self.options.send_seed else None,
            "cost": self.options.price,
            "usage": dict(reply.usage) or None,
            "revised_prompt": reply.revised_prompt or None,
        }
        found = {name: value for name, value in known.items() if value is not None}
        return {"device": "server", "server": self.options.address, "spent": spent, **found}

    def _failed(self, draw: Draw, error: RequestError) -> list[Generation]:
        """The draw's error; or nothing, and no further request, if none can succeed."""
        if is_refusal(error):
            why = f"refused for its content: {error}"
            return [Generation(draw.key, draw.seed, error=why, provenance={"device": "server"})]
        if self.failure is not None:
            return []  # it waited for what is of no use any more
        if (stop := self._reason_to_stop(error)) is not None:
            self._stop(stop)
            return []
        return [Generation(draw.key, draw.seed, error=str(error), provenance={"device": "server"})]

    def _reason_to_stop(self, error: RequestError) -> SarEvalError | None:
        where = self.options.address
        if error.status in (401, 403):
            return BadInput(f"{LABEL}: {where}: {error} ({key_hint(self.options.api_key_env)})")
        if error.status in (404, 405):
            return BadInput(f"{LABEL}: {where}: {error} (is the address right, and the model's name?)")
        if error.no_credit:
            return Incomplete(f"{LABEL}: {where} draws for nothing no more: {error}. {AGAIN}")
        if error.status == 0 and (silence := _silence(self.options)):
            return Incomplete(f"{LABEL}: {where} stopped responding: {silence}. {AGAIN}")
        return None

    def _stop(self, failure: SarEvalError) -> None:
        with self._lock:
            if self.failure is None:
                self.failure = failure
                self.client.stop_retrying.set()


def seed_sent(draw: Draw) -> int:
    """The draw's seed as servers get it: its first `SEED_BITS` bits of 63."""
    return draw.seed >> (63 - SEED_BITS)


def _marks(data: bytes) -> dict[str, Json]:
    """What the stored picture does not show of the file that was sent."""
    marks = {"lossy": is_lossy(data), "transparent": is_transparent(data)}
    return {name: True for name, value in marks.items() if value}


def _client(options: Options, timeout_s: float, max_bytes: int | None = None) -> JsonClient:
    limit = {} if max_bytes is None else {"max_bytes": max_bytes}
    return JsonClient(
        options.address,
        api_key_env=options.api_key_env,
        timeout_s=timeout_s,
        retries=options.retries,
        pace=Pace(options.requests_per_minute),
        **limit,
    )


def _silence(options: Options) -> str:
    """Why the server answers nothing at all, "" if it answers anything."""
    try:
        _client(options, min(options.timeout_s, CHECK_TIMEOUT_S)).list_models("/v1/models")
    except RequestError as error:
        return str(error) if error.status == 0 else ""
    return ""


def _check_model(client: JsonClient, model: str, api_key_env: str) -> list[str]:
    """Notes on what could not be checked.

    Raises:
        BadInput: the server does not respond, refuses the key, or lists other models.
    """
    try:
        models = client.list_models("/v1/models")
    except RequestError as error:
        # 403: a key may be for pictures alone.
        if error.status == 401 or error.retryable:
            hint = f" ({key_hint(api_key_env)})" if error.status == 401 else ""
            raise BadInput(f"{LABEL}: {client.url}/v1/models: {error}{hint}") from error
        return [f"{client.url} lists no models ({error}): whether it serves {model} will show"]
    if model not in models:
        more = f" and {len(models) - LISTED_MODELS} more" if len(models) > LISTED_MODELS else ""
        shown = ", ".join(shorten(client.excerpt(name)) for name in models[:LISTED_MODELS]) or "none"
        raise BadInput(f"{LABEL}: {client.url} serves no model {shorten(model)}, but {shown}{more}")
    return []


def _reported_version(client: JsonClient) -> str:
    """What the server says of itself at `/version`, as vLLM's do; "" if it says nothing.

    Raises:
        BadInput: a passing failure, of which a run's identity must not depend.
    """
    try:
        content = client.get("/version")
    except RequestError as error:
        if error.retryable:
            raise BadInput(f"{LABEL}: {client.url}/version: {error}") from error
        return ""
    version = content.get("version") if isinstance(content, dict) else None
    return client.excerpt(version) if isinstance(version, str) else ""


ENGINE = ServerEngine
