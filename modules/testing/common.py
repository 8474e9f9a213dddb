"""What both tests share: forward passes in the precision of the test, the control experiment, the results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.git import git_state
from lseg_utils.results import append_log, text_table, write_csv, write_json

from ..choices import Speed
from ..device import allow_tf32, reduced_dtype
from ..models import LSegNet
from ..models.precision import cast_products, compile_parts
from .report_page import write_report
from .settings import TestRun


def prepare_forward(net: LSegNet, speed: Speed, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Cast the weights of ``net`` (on ``device``) and compile it as ``speed`` asks; returns the forward pass.

    It takes images (B, 3, h, w) and the labels' embeddings (N, C), or (B, N, C) with labels per image, and gives
    float32 logits at half size (B, N, h/2, w/2).
    """
    dtype = reduced_dtype(speed.precision, device)
    cast_products(net, dtype)
    allow_tf32(device.type == "cuda")
    if speed.compile:
        compile_parts(net)

    def forward(images: Tensor, text: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return net.half_logits(images, text)

    return forward


def check_scores(scores: Tensor, precision: str) -> None:
    """``InputError`` for scores that are NaN or infinite: the strongest label would always be the first."""
    if (~scores.isfinite()).any():
        raise InputError(
            f"the network's scores are NaN or infinite in {precision}: "
            + ("its weights or an image are broken" if precision == "float32" else "test with --precision 32")
        )


def derangement(count: int, seed: int) -> list[int]:
    """A random cyclic order of 0..count-1 in which none keeps its place (a single label has no other place)."""
    order = np.random.default_rng(seed).permutation(count)
    target = np.empty(count, dtype=int)
    target[order] = np.roll(order, 1)
    return target.tolist()


def write_results(
    run: TestRun,
    title: str,
    log: tuple[str, str],
    facts: Mapping[str, Any],
    figures: Mapping[str, float],
    rows: Sequence[tuple[int, str, float]],
    labels: Sequence[str],
    results: Mapping[str, Any],
    control: str,
    **more: Any,
) -> None:
    """The table on the screen, results.json, per_class_iou.csv, report.html, a log line; figures in percent.

    log: the name of the log file before the job's and the dataset's, and the line. facts: what was tested, and how.
    figures: the headline numbers. rows: (class, label, IoU), classes counted from 0. labels: the dataset's whole list
    as it was tested; results.json has its SHA-256. results: further entries of results.json. control: what the report
    calls ``shuffle_labels``. more: for ``write_report``.
    """
    print(text_table(("class", "label", "IoU %"), rows))
    for name, value in figures.items():
        print(f"{name}: {value:.2f} %")
    listed: dict[str, Any] = {"labels_sha256": hashlib.sha256("\n".join(labels).encode()).hexdigest()}
    listed |= {"shuffled_labels": run.shuffle_labels}
    write_json(run.folder / "results.json", {**facts, **listed, **results, "git": git_state()})
    write_csv(run.folder / "per_class_iou.csv", ("class", "label", "iou_percent"), rows)
    append_log(run.log_dir / f"{log[0]}_{run.jobname}_{facts['dataset']}.txt", log[1])
    shown = facts if run.shuffle_labels is None else {**facts, "control": control}
    ious = [(label, iou) for _, label, iou in rows]
    write_report(run.folder / "report.html", title, figures, shown, ious, **more)
    print(f"wrote {run.folder / 'results.json'} and {run.folder / 'report.html'}")
