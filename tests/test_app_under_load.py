"""Twenty visitors use the app for two minutes: every request is answered, no visitor sees an error, memory stays flat.

Visitors are connections that speak Streamlit's protocol, so they cost little and the machine works for the app. The
figures go to the terminal: pytest -s tests/test_app_under_load.py
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest
from PIL import Image

import browser
from checkpoint_files import own_file
from predicting import picture
from tiny import tiny_net

VISITORS = int(os.environ.get("LSEG_VISITORS", "20"))
SECONDS = float(os.environ.get("LSEG_SECONDS", "120"))
WORDS = ["cat", "dog", "grass", "sky", "road", "car", "tree", "house", "person", "water"]
PAUSE = (0.5, 2.0)  # seconds that a visitor looks at an answer

pytestmark = pytest.mark.slow


class Visitor:
    """A connection to the app; ``answers``: seconds that each request took; ``errors``: what it was shown."""

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.rng = f"{url.replace('http', 'ws')}/_stcore/stream", random.Random(seed)
        self.answers: list[float] = []
        self.errors: list[str] = []
        self.fields: dict[str, str] = {}  # the label of a text field or list -> its id
        self.samples: list[str] = []

    async def arrive(self) -> None:
        """Open the page."""
        from websockets.asyncio.client import connect

        # The first visitor waits until the network is loaded.
        options = {"max_size": None, "open_timeout": None, "ping_interval": None}
        self.socket = await connect(self.url, subprotocols=["streamlit"], **options)
        await self.ask({})

    async def stay(self, until: float) -> None:
        """Change labels, and now and then the picture, until the time is over."""
        while time.monotonic() < until:
            await asyncio.sleep(self.rng.uniform(*PAUSE))
            wanted = {"Labels": "\n".join(self.rng.sample(WORDS, 4))}
            if self.rng.random() < 0.3:
                wanted["Or choose a sample"] = self.rng.choice(self.samples)
            await self.ask(wanted)
        await self.socket.close()

    async def ask(self, values: dict[str, str]) -> None:
        """One run of the page with these values; what it shows is read until it has finished."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        message = BackMsg()
        message.rerun_script.query_string = ""
        for name, value in values.items():
            message.rerun_script.widget_states.widgets.add(id=self.fields[name], string_value=value)
        began = time.monotonic()
        await self.socket.send(message.SerializeToString())
        while True:
            answer = ForwardMsg.FromString(await self.socket.recv())
            element = answer.delta.new_element
            kind = element.WhichOneof("type")
            if kind == "exception":
                self.errors.append(element.exception.message)
            elif kind == "alert" and element.alert.format == element.alert.ERROR:
                self.errors.append(element.alert.body)
            elif kind in ("text_area", "selectbox"):
                field = getattr(element, kind)
                self.fields[field.label] = field.id
                if field.label == "Or choose a sample":
                    self.samples = list(field.options)
            if answer.WhichOneof("type") == "script_finished":
                self.answers.append(time.monotonic() - began)
                return


def resident_megabytes(process: int) -> float:
    """What a process has in memory now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif("LSEG_SECONDS" not in os.environ, reason="takes minutes of all cores: LSEG_SECONDS=120")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_twenty_visitors_for_two_minutes(tmp_path):
    pytest.importorskip("websockets")
    run = tmp_path / "q" / "runs" / "trained_seed0" / "version_0"
    own_file(tiny_net(labels=["red square", "grass"]), run / "checkpoints" / "last.ckpt")
    images = tmp_path / "q" / "datasets_seed0" / "miniature" / "images" / "validation"
    images.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(picture(64, 64, seed=number)).save(images / f"{number}.jpg")
    memory: list[float] = []

    async def all_of_them(url: str, process: int) -> list[Visitor]:
        """Let all visitors arrive, then stay; note the memory ten times meanwhile."""
        visitors = [Visitor(url, seed) for seed in range(VISITORS)]
        await asyncio.gather(*(visitor.arrive() for visitor in visitors))

        async def watch() -> None:
            """Note the memory at equal distances."""
            for _ in range(10):
                memory.append(resident_megabytes(process))
                await asyncio.sleep(SECONDS / 10)

        until = time.monotonic() + SECONDS
        await asyncio.gather(watch(), *(visitor.stay(until) for visitor in visitors))
        memory.append(resident_megabytes(process))
        return visitors

    with browser.running_app(tmp_path, "--checkpoint_dir", "none", "--quickstart", "q") as (url, process):
        visitors = asyncio.run(all_of_them(url, process.pid))
    answers = sorted(seconds for visitor in visitors for seconds in visitor.answers)
    print(
        f"\n{len(visitors)} visitors, {len(answers)} answers in {SECONDS:.0f} s: median "
        f"{answers[len(answers) // 2]:.2f} s, slowest {answers[-1]:.2f} s; load {os.getloadavg()[0]:.1f}; "
        f"memory in MB: {', '.join(f'{one:.0f}' for one in memory)}"
    )
    assert not [error for visitor in visitors for error in visitor.errors]
    assert all(len(visitor.answers) > 1 for visitor in visitors)
    middle, end = memory[len(memory) // 2], memory[-1]
    assert end < 1.05 * middle + 20, f"memory grew from {middle:.0f} to {end:.0f} MB in the second half"
