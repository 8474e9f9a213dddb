"""One benchmark after the other: every picture is predicted once, counted, and never again after a kill.

Legend: N classes; H x W a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoding_ext.mask_scores import boundary_counts, boundary_iou, cp_iou
from encoding_ext.metrics import scores_from_confusion
from lseg_utils.distributed import wait_for_all
from lseg_utils.errors import InputError
from lseg_utils.ledger import Ledger
from lseg_utils.pictures import label_picture, save_picture
from lseg_utils.progress import is_rank_zero, progress_bar
from modules.testing.report_page import worst_confusions, write_report
from openvocab.benchmarks import Benchmark, Task
from openvocab.models import picture_names
from openvocab.wording import word_similarity

# (image uint8 (3, H, W), name) -> classes int64 (H, W), and where CP-IoU is asked for the probabilities (N, H, W)
Predict = Callable[[Tensor, str], tuple[Tensor, Tensor | None]]
# (index, image, classes of the truth (H, W)) -> what is kept of a picture
Count = Callable[[int, Tensor, Tensor], dict[str, Any]]


def pixels_of(image: Image.Image) -> Tensor:
    """A PIL image as uint8 (3, H, W): every model normalises for itself."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class Pictures(Dataset):
    """The pictures of a dataset with their truth as classes.

    names: of the pictures. class_of: the class of each label of the dataset; -1: it does not count.
    """

    def __init__(self, dataset: Any, names: Sequence[str], class_of: Sequence[int]) -> None:
        self.dataset, self.names = dataset, names
        self.class_of = torch.tensor([*class_of, -1])  # index -1, unlabelled, is the last

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor]:
        """``index``, the picture uint8 (3, H, W), and its classes int64 (H, W), -1 where nothing counts."""
        image, mask = self.dataset[index]
        return index, image, self.class_of[mask]


def counted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, list]:
    """What a picture adds to the counts, without the zeros: [truth, prediction, pixels] and boundary counts."""
    known = truth >= 0
    numbers, pixels = np.unique(truth[known].astype(np.int64) * classes + predicted[known], return_counts=True)
    boundaries = boundary_counts(truth, predicted, classes)
    found = np.nonzero(boundaries[:, 1])[0]
    return {
        "pairs": np.stack([numbers // classes, numbers % classes, pixels], axis=1).tolist(),
        "boundary": [[int(cls), *boundaries[cls].tolist()] for cls in found],
    }


def summed(records: Sequence[Mapping[str, Any]], classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes that occur (M,), their confusion matrix (M, M), and the boundary counts (N, 2) of all pictures.

    Classes that no pixel has or is predicted as are left out: of 10,000 labels a matrix would take 800 MB.
    """
    found = np.unique([number for record in records for pair in record["pairs"] for number in pair[:2]]).astype(int)
    place = np.zeros(classes, int)
    place[found] = np.arange(len(found))
    confusion, boundaries = np.zeros((len(found), len(found)), np.int64), np.zeros((classes, 2), np.int64)
    for record in records:
        if record["pairs"]:
            truth, predicted, pixels = np.array(record["pairs"]).T
            confusion[place[truth], place[predicted]] += pixels  # no pair occurs twice in a picture
        for cls, *counts in record["boundary"]:
            boundaries[cls] += counts
    return found, confusion, boundaries


def measure(
    benchmark: Benchmark,
    task: Task,
    dataset: Any,
    predict: Predict,
    facts: Mapping[str, Any],
    folder: Path,
    workers: int,
    masks: Path | None,
) -> dict[str, Any] | None:
    """Test one benchmark, or what an earlier run left of it; the results, in the first process.

    facts: what the counts depend on; an earlier run in ``folder`` with other facts is refused. masks: the folder to
    which every prediction is written; None: none is.
    """
    classes, names = len(task.classes), picture_names([dataset.name_of(i) for i in range(len(dataset))])

    def count(index: int, image: Tensor, truth: Tensor) -> dict[str, Any]:
        """Predict one picture; what is kept of it."""
        labels, probabilities = predict(image, names[index])
        predicted = labels.numpy()
        if masks is not None:
            save_picture(masks / f"{names[index]}.png", label_picture(predicted, classes))
        record = counted(truth.numpy(), predicted, classes)
        if probabilities is not None:
            record["cp_iou"] = cp_iou(probabilities, truth.to(probabilities.device)).tolist()
        return record

    header = {**facts, "writes_masks": masks is not None}
    pictures = Pictures(dataset, names, task.class_of)
    records = picture_by_picture(pictures, count, header, folder, workers, benchmark.name)
    return None if records is None else results(benchmark, task, records, facts, folder)


def picture_by_picture(
    pictures: Pictures, count: Count, header: Mapping[str, Any], folder: Path, workers: int, what: str
) -> list[dict[str, Any]] | None:
    """The record of every picture, in the first process: what ``count`` returns, with ``index`` and ``name``.

    Each process takes a share. A picture that an earlier run has counted is not read again; ``InputError`` if that run
    had another ``header``.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    # Counts belong to these pictures in this order, and to what the numbers in their masks mean.
    description = getattr(pictures.dataset, "description", None)
    counted_on = "\n".join([*pictures.names, repr(description and description.masks), str(pictures.class_of.tolist())])
    header = {**header, "pictures_sha256": hashlib.sha256(counted_on.encode(errors="surrogateescape")).hexdigest()}

    def ledger(path: Path) -> Ledger:
        """The counts in a file; the error of another run's says what to do."""
        try:
            return Ledger(path, header)
        except InputError as error:
            raise InputError(f"{error}\nGive another --output_dir, or delete {folder}") from None

    def records() -> list[dict[str, Any]]:
        """Those of all processes of this run and of earlier ones."""
        return [record for path in sorted(folder.glob("pictures_*.jsonl")) for record in ledger(path).records]

    # Each process appends to a file of its own; all read all of them before any appends.
    done = {record["index"] for record in records()}
    own = ledger(folder / f"pictures_{rank}.jsonl")
    wait_for_all()
    if done and is_rank_zero():
        print(f"{what}: {len(done)} of {len(pictures)} pictures were counted by an earlier run")
    remaining = [index for index in range(len(pictures)) if index not in done][rank::world]
    # One picture at a time, read ahead by ``workers`` processes (0: by none).
    loader = DataLoader(
        pictures, batch_size=None, sampler=remaining, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
    for index, image, truth in progress_bar(loader, desc=what, unit="image"):
        own.append({"index": index, "name": pictures.names[index], **count(index, image, truth)})
    wait_for_all()
    return sorted(records(), key=lambda record: record["index"]) if is_rank_zero() else None


def results(
    benchmark: Benchmark, task: Task, records: list[dict[str, Any]], facts: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Scores of all pictures, in percent, and a page with the classes."""
    found, confusion, boundaries = summed(records, len(task.classes))
    if not len(found):
        raise InputError(f"{benchmark.name}: no pixel of the {len(records)} pictures counts; check their masks")
    names = [task.classes[cls] for cls in found]
    scores = scores_from_confusion(confusion, word_similarity(names))
    scores["miou_all"] *= len(found) / len(task.classes)  # those that do not occur count 0
    scores["boundary_iou"] = boundary_iou(boundaries)
    by_threshold = []
    if records and "cp_iou" in records[0]:
        by_threshold = (100 * np.mean([record["cp_iou"] for record in records], axis=0)).tolist()
        scores["cp_iou"] = float(np.mean([row[0] for row in by_threshold]))
    hits = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    of_class = dict(zip(found.tolist(), (100 * hits / np.maximum(union, 1)).tolist(), strict=True))
    per_class = [of_class.get(cls, 0.0) for cls in range(len(task.classes))]
    quoted = {f"mIoU of the literature ({benchmark.score})": scores[benchmark.score]}
    shown = {name: value for name, value in facts.items() if name != "labels"}
    write_report(
        folder / "report.html",
        f"{benchmark.name}: {facts['model']}",
        quoted | {name: value for name, value in scores.items() if name != benchmark.score},
        {**shown, "pictures": len(records)},
        list(zip(task.classes, per_class, strict=True)),
        worst_confusions(confusion, names),
    )
    return {
        **facts,
        "pictures": len(records),
        "quoted_score": benchmark.score,
        "scores": scores,
        "per_class_iou": per_class,
        **({"cp_iou_by_threshold": by_threshold} if by_threshold else {}),
    }
