"""Timing several procedures in alternation, each in a process of its own, so that each has its own peak memory.

The processes live through the whole run and wait while another one computes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import multiprocessing
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lseg_utils.errors import InputError
from lseg_utils.memory import is_out_of_memory

MIN_SECONDS = 0.2  # of one timing on a GPU: shorter work is repeated within it


@dataclass
class Work:
    """What a process does again and again.

    Attributes:
        run: the work; it returns a list of tensors that can be asked for, or anything else.
        items: how much of it there is (images, samples), for the throughput.
        precision: of its matrix products, a key of ``common.matrix_rates``.
        part: a part of ``run`` that is done once before the timings, to warm up and to count FLOPs; default: ``run``.
        parts: how many such parts ``run`` consists of.
        seconds: what a timing of ``run`` amounts to, where that is more than the clock shows.
    """

    run: Callable[[], Any]
    items: float
    precision: str = "float32"
    part: Callable[[], Any] | None = None
    parts: int = 1
    seconds: Callable[[float], float] = float


Maker = Callable[[argparse.Namespace], Work]


class Process:
    """A procedure in its own process. ``maker`` is a function of a module, called there with ``options``."""

    def __init__(self, maker: Maker, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "torchvision", "timm", "pytorch_lightning"])  # slow: once for all
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, maker, options), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str) -> None:
        """Let it begin; see ``_Server`` for the questions."""
        self._pipe.send(question)

    def answer(self) -> Any:
        """What the last question gave, or the error that it ended with; ``MemoryError`` if memory was short."""
        try:
            error, value = self._pipe.recv()
        except EOFError:
            raise MemoryError("the process of a benchmark was killed, possibly because memory ran out") from None
        if error is not None:
            raise error(value)
        return value

    def __call__(self, question: str) -> Any:
        self.ask(question)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()  # which it notices, unless it waits for another process that has failed
        self._process.join(timeout=10)
        self._process.terminate()


class _Server:
    """Answers questions about one work."""

    def __init__(self, maker: Maker, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        self.device = options.device
        self.work = maker(options)
        self.repeats = 1
        self.returned: Any = None

    def synchronize(self) -> None:
        """Wait for what a GPU still has to do."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def warm_up(self) -> dict[str, Any]:
        """Do a part of the work once, counting; what a run is: "flop", "items", "precision"."""
        part = self.work.part or self.work.run
        # The counter supports matrix products and convolutions; "math" is attention made of those.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            part()
        if self.device != "cpu":  # the first run of anything on a GPU is not representative
            started = time.perf_counter()
            part()
            self.synchronize()
            seconds = (time.perf_counter() - started) * self.work.parts
            self.repeats = max(1, min(100, int(MIN_SECONDS / max(seconds, 1e-6))))
            torch.cuda.reset_peak_memory_stats(self.device)
        forget_peak()
        flop = counter.get_total_flops() * self.work.parts
        return {"flop": flop, "items": self.work.items, "precision": self.work.precision}

    def time(self) -> float:
        """Seconds of one run."""
        self.returned = None
        self.synchronize()
        started = time.perf_counter()
        for _ in range(self.repeats):
            self.returned = self.work.run()
        self.synchronize()
        return self.work.seconds((time.perf_counter() - started) / self.repeats)

    def peak(self) -> float:
        """Bytes in the timed runs: of the whole process on a CPU, of its tensors on a GPU."""
        return resident_bytes(peak=True) if self.device == "cpu" else torch.cuda.max_memory_allocated(self.device)

    def profile(self) -> dict[str, float]:
        """The operators that take longest in a run of its own, each with its share of the time."""
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CPU] + [kinds.CUDA] * (self.device != "cpu")) as profiler:
            self.work.run()
            self.synchronize()
        clock = "self_cpu_time_total" if self.device == "cpu" else "self_device_time_total"
        times = {event.key: getattr(event, clock) for event in profiler.key_averages()}
        longest = sorted(times, key=times.get, reverse=True)[:8]
        return {operator: times[operator] / sum(times.values()) for operator in longest}

    def result(self) -> Any:
        """What the last run returned, tensors as arrays."""
        return [each.cpu().numpy() for each in self.returned] if isinstance(self.returned, list) else self.returned


def _serve(pipe: Connection, maker: Maker, options: argparse.Namespace) -> None:
    server: _Server | None = None
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        try:
            server = server or _Server(maker, options)
            answer = (None, getattr(server, question)())
        except InputError as error:
            answer = (InputError, str(error))
        except Exception as error:
            short = isinstance(error, RuntimeError) and is_out_of_memory(error)
            answer = (MemoryError if short else RuntimeError, traceback.format_exc())
        pipe.send(answer)


def resident_bytes(peak: bool = False) -> float:
    """Resident memory of this process; on Linux not ``ru_maxrss``, which a process inherits."""
    if not sys.platform.startswith("linux"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024.0 * int(lines["VmHWM" if peak else "VmRSS"].split()[0])


def forget_peak() -> None:
    """Let the resident memory's peak count from here, where the system can do that."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS


def alternate(
    processes: dict[str, Any], rounds: int, profiled: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Time all processes ``rounds`` times, one after the other in each round; then profile some, and end all.

    Anything that is asked and closed as a ``Process`` can be one.

    Returns:
        by name: "seconds" [...], "flop" and "items" of a run, "precision", "peak_bytes", "profile";
        by name: what was computed.
    """
    try:
        measured = {name: process("warm_up") | {"seconds": []} for name, process in processes.items()}
        for _ in range(rounds):
            for name, process in processes.items():
                measured[name]["seconds"].append(process("time"))
        for name, process in processes.items():
            measured[name]["peak_bytes"] = process("peak")
            measured[name]["profile"] = process("profile") if name in profiled else None
        return measured, {name: process("result") for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()


def row(
    what: str, procedure: str, measured: dict[str, Any], plain: dict[str, Any] | None, **more: Any
) -> dict[str, Any]:
    """One line of the results, compared with ``plain``; ``common.report`` adds the share."""
    seconds = statistics.median(measured["seconds"])
    per_second = measured["items"] / seconds
    return {
        "what": what,
        "procedure": procedure,
        "least_seconds": min(measured["seconds"]),
        "ratio": per_second * statistics.median(plain["seconds"]) / plain["items"] if plain else None,
        "memory_ratio": measured["peak_bytes"] / plain["peak_bytes"] if plain else None,
        "per_second": per_second,
        "unit": "images",
        "flop_per_s": measured["flop"] / seconds,
        **{name: value for name, value in measured.items() if name != "items"},
        **more,
    }


def agreement(maps: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The share of pixels with the same label in two lists of label maps."""
    same = [(one == other).ravel() for one, other in zip(maps, others, strict=True)]
    return float(np.concatenate(same).mean())
