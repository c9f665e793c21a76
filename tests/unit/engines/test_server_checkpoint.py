"""The checkpoint of the engine `server`, a model's name at an address, and the specs that it is in."""

import hashlib
import json
import socket

import pytest

from sar_eval.engines.server import ServerEngine
from sar_eval.errors import BadInput
from sar_eval.recipe import load_recipe
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import most_workers, resolve
from sar_eval.types import DrawProtocol, Json
from tests.fake_images_server import FakeImagesServer, serving_images

KEY = "sk-Se&cret/a<b+c=="


@pytest.fixture
def server():
    with serving_images() as found:
        yield found


def found_digest(server: FakeImagesServer, name: str = "painter", **options: Json) -> str:
    return ServerEngine.find(name, {"base_url": server.url, **options}).digest


def test_the_digest_names_address_model_and_version(server: FakeImagesServer) -> None:
    parts = json.dumps([server.url, "painter", ""])
    assert found_digest(server) == hashlib.sha256(parts.encode()).hexdigest()[:16]
    assert found_digest(server, base_url=f"{server.url}/v1") == found_digest(server)
    assert found_digest(server, concurrency=9, price=1.0) == found_digest(server)
    before = found_digest(server)
    server.version, server.models = "0.30.0", ["painter", "other"]
    assert len({before, found_digest(server), found_digest(server, "other")}) == 3
    moved = found_digest(server, identity="node")
    with serving_images(version="0.30.0") as elsewhere:
        assert found_digest(elsewhere, identity="node") == moved
        assert found_digest(elsewhere) != found_digest(server)


def test_a_server_must_answer_for_the_model(server: FakeImagesServer, monkeypatch) -> None:
    with pytest.raises(BadInput, match="serves no model 'sculptor', but 'painter'"):
        found_digest(server, "sculptor")
    server.models = [f"m{n}" for n in range(30)]
    with pytest.raises(BadInput, match="and 20 more"):
        found_digest(server)
    server.models_status = 503
    with pytest.raises(BadInput, match="/v1/models: the server returned 503"):
        found_digest(server)
    server.models_status = 403  # of a key that is for pictures alone
    notes = ServerEngine.find("painter", {"base_url": server.url}).notes
    assert "whether it serves painter will show" in notes[0]
    assert "sends no seed" in notes[1]
    monkeypatch.setenv("IMAGES_KEY", KEY)
    server.key = "another"
    with pytest.raises(BadInput, match=r"bad key Bearer \[key\] \(is the key in IMAGES_KEY right\?\)"):
        found_digest(server, api_key_env="IMAGES_KEY")


def test_nobody_there_is_told_before_anything_is_drawn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(BadInput, match="/v1/models: no response: ConnectionRefusedError"):
        ServerEngine.find("painter", {"base_url": url})


def resolved(server: FakeImagesServer, **overrides: Json) -> RunSpec:
    asked = {"engine": "server", "engine_options": {"base_url": server.url}, **overrides}
    return resolve(load_recipe("shapes"), "painter", asked)


def test_a_recipe_keeps_its_resolution_and_not_its_sampling(server: FakeImagesServer) -> None:
    spec = resolved(server)
    assert spec.protocol == DrawProtocol("custom", 64)
    assert (spec.checkpoint, spec.engine_version) == ("painter", "1")
    assert spec.checkpoint_digest == found_digest(server)
    assert most_workers(spec) == 1
    preset = resolved(server, protocol="simplear", resolution=128).protocol
    assert (preset.prefix[:8], preset.guidance, preset.resolution) == ("A highly", 1.0, 128)
    for name, value in {"guidance": 3.0, "temperature": 0.5, "top_k": 9}.items():
        flag = f"--{name.replace('_', '-')} is of no use for painter"
        with pytest.raises(BadInput, match=flag):
            resolved(server, **{name: value})


def test_only_what_changes_pictures_is_in_the_runs_digest(server: FakeImagesServer, monkeypatch) -> None:
    monkeypatch.setenv("IMAGES_KEY", KEY)
    options: dict[str, Json] = {"base_url": server.url}
    first = resolved(server).digest
    for same in (
        {"price": 1.0},
        {"concurrency": 9},
        {"api_key_env": "IMAGES_KEY"},
        {"image_format": "webp"},
    ):
        assert resolved(server, engine_options=options | same).digest == first
    for other in ({"steps": 9}, {"guidance": 2.0}, {"send_seed": True}, {"extra": {"quality": "low"}}):
        assert resolved(server, engine_options=options | other).digest != first


def test_other_engines_find_their_checkpoints_as_before() -> None:
    spec = resolve(load_recipe("shapes"), "demo:sft", {"resolution": 32})
    assert (spec.protocol.guidance, spec.protocol.temperature) == (2.0, 0.5)
    assert most_workers(spec) is None
