"""A vision-language model behind an HTTP server as a reward, and what happens when its server stops."""

import tomllib

import pytest
from fake_chat_server import PIXELS, FakeChatServer, pixels, serving

from sar_eval.errors import Incomplete
from sar_eval.images.files import encode_png
from sar_eval.rewards.pool import RewardPool, check_losses, lost_share, reward_specs, scores
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.types import Generation, Prompt

RECIPE = """
[rewards.questions]
judge = "vqa"
workers = 2
timeout_s = 60
options = {{ answerer = "server", url = "{url}", model = "judge-7b", retries = 0 }}
"""


def _items() -> list[tuple[Prompt, Generation]]:
    checks = write_questions([Question(1, "red?", (), "attribute")])
    return [
        (Prompt(color, color, checks=checks), Generation(f"{color}/0", 0, image=encode_png(pixels(color))))
        for color in PIXELS
    ]


def test_a_served_model_gives_rewards_and_its_loss_stops_the_run() -> None:
    with serving() as server:
        specs = reward_specs(tomllib.loads(RECIPE.format(url=server.url))["rewards"], "mine.toml")
        with RewardPool(specs) as pool:
            found = pool.submit(_items())[0].result(60)
            assert scores(found) == [1.0, 0.0, 0.0]
            _stop(server)
            lost = pool.submit(_items())[0].result(60)
    assert lost_share(lost) == 1.0
    with pytest.raises(Incomplete, match=r"'questions' has no score for 3 of 3 .*no response"):
        check_losses({"questions": lost})


def _stop(server: FakeChatServer) -> None:
    server.stops_after = 1
