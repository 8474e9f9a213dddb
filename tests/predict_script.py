"""What tests of predict_lseg.py share: a tiny checkpoint, a video, running and killing the script, its results."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import predict_lseg
from apps.predict.video_reader import Frame, Timing
from apps.predict.video_writer import WRITERS
from modules.checkpoint_metadata import METADATA_KEY, metadata_of
from modules.checkpoints import to_official
from modules.predictor import LSegPredictor
from predicting import picture
from scripts import environment, forked
from tiny import tiny_net

ABOUT_THE_RUN = ("run.json", "summary.json", "report.html")  # the state of git, the time, how much was done before
TIMING = Timing(Fraction(1, 24), Fraction(24))
LABELS = ["dog", "grass", "a red car", "sky", "x"]  # the tiny network finds three of them in its pictures


def tiny_weights(folder: Path) -> Path:
    """The checkpoint of a tiny network with labels of its own."""
    path, net = folder / "tiny.ckpt", tiny_net("tiny_vit")
    torch.save({"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net)}, path)
    return path


def arguments(weights: Path, *inputs: object, more: list[object] = ()) -> list[str]:
    out = Path(inputs[0]).parent / "out"
    line = [*inputs, "--weights", weights, "--labels", ", ".join(LABELS), "--output_dir", out, "--device", "cpu", *more]
    return [str(one) for one in line]


def predict(weights: Path, *inputs: object, code: int = 0, more: list[object] = ()) -> Path:
    """Run the script in this process; the folder of its results."""
    assert predict_lseg.main(arguments(weights, *inputs, more=more)) == code
    return Path(inputs[0]).parent / "out"


def files(folder: Path) -> list[str]:
    """Everything below, with ``/``; nothing half-written is there."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert not [name for name in found if ".aside" in name]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All results; what describes the run may differ."""
    return {name: (folder / name).read_bytes() for name in files(folder) if name not in ABOUT_THE_RUN}


def video(path: Path, frames: int = 10, height: int = 48, width: int = 64) -> Path:
    """Noisy blocks that move, so that frames differ and a cut falls into one."""
    still = picture(height, width)
    write_video(path, (Frame(np.roll(still, 3 * i, axis=1), i) for i in range(frames)))
    return path


def write_video(path: Path, frames: Iterable[Frame], timing: Timing = TIMING) -> None:
    """Write all ``frames`` in the format of the suffix."""
    with WRITERS[path.suffix[1:]](path, timing) as add:
        for frame in frames:
            add(frame)


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of files that are not in both, or not the same."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def kill_when(ready: Callable[[], bool], line: list[str]) -> None:
    """Start the script, wait until ``ready()``, and kill it as the kernel would."""
    process = subprocess.Popen(
        forked("predict_lseg.py", *line), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while not ready():
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def interrupt(method: str, at: int, line: list[str]) -> None:
    """Run the script, and press Ctrl-C in call number ``at``, counted from 1, of a method of the predictor."""
    calls, original = [], getattr(LSegPredictor, method)

    def interrupted(self: LSegPredictor, *arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LSegPredictor, method, interrupted)
        predict_lseg.main(line)


def manifest(out: Path) -> dict:
    """The content of embeddings/manifest.json."""
    return json.loads((out / "embeddings" / "manifest.json").read_text())


def stored(out: Path, entry: dict) -> np.ndarray:
    """The embedding that an entry of the manifest names."""
    name, _, key = entry["file"].partition(":")
    path = out / "embeddings" / name
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True).numpy()
    with pytest.importorskip("h5py").File(path) as file:
        return file[key][:]


class FakeCamera:
    """In place of ``cv2.VideoCapture``: gives noise, ``pictures`` times."""

    pictures = 10**9

    def __init__(self, number: int) -> None:
        self.taken = 0

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray]:
        self.taken += 1
        return self.taken <= self.pictures, picture(48, 64, seed=self.taken)

    def release(self) -> None:
        """There is nothing to release."""
