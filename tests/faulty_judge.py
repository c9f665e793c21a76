"""Does what the prompt says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sar_eval.errors import BadInput, DeviceLost
from sar_eval.types import Verdict


class Faulty:
    version = "7"

    def __init__(self, device="cpu", folder="", start=""):
        self.folder, self.start, self.device = Path(folder), start, device

    def __enter__(self):
        if self.start == "bad":
            raise BadInput("no such weights")
        if self.start == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        print("this judge prints")
        (self.folder / f"{os.getpid()}.started").touch()
        return self

    def __exit__(self, *error):
        (self.folder / f"{os.getpid()}.closed").touch()

    def judge(self, items):
        for prompt, generation in items:
            yield from self.one(prompt.text, generation.key)

    def one(self, text, key):  # noqa: PLR0912 - one branch a fault
        once = self.folder / f"{key.replace('/', '-')}.once"
        first = not once.exists()
        if text.startswith("once "):
            once.touch()
            text = text.removeprefix("once ") if first else "1"
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "lose":
            raise DeviceLost("an illegal memory access")
        if text == "exit":
            sys.exit(0)
        if text == "hang":
            time.sleep(600)
        if text == "raise":
            raise ZeroDivisionError("three")
        if text == "interrupt":
            raise KeyboardInterrupt
        if text == "generator":
            raise GeneratorExit("out")
        if text == "pipes":
            os.closerange(3, 256)
        if text == "child":
            sleeper = subprocess.Popen(["sleep", "600"])
            (self.folder / f"{sleeper.pid}.sleeper").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "forget":
            return
        if text == "other":
            key, text = "nobody/0", "1"
        if text == "text":
            yield "no verdict"
        if text == "unplain":
            yield Verdict(key, "faulty", "7", 1.0, evidence=self)
            return
        if text == "threads":
            text = os.environ["OMP_NUM_THREADS"]
        if text == "torch":
            text = str(float("torch" in sys.modules))
        if text == "rank":
            text = str(float("RANK" in os.environ))
        score = {"none": None, "passed": None, "word": "good"}.get(text, text)
        score = float(score) if score not in (None, "good") else score
        yield Verdict(key, "faulty", "7", score, True if text == "passed" else None)
        if text == "2":
            yield Verdict(key, "faulty", "7", score)


JUDGE = Faulty
