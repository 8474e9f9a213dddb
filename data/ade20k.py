"""ADE20K as LSeg uses it: the 150 labels of the scene parsing challenge of 2016."""

from __future__ import annotations

from pathlib import Path

from data.base import FolderSegmentationDataset
from data.labels import LABEL_FILES, resolve_labels
from data.pairs import standard_splits


class ADE20K(FolderSegmentationDataset):
    """20,210 training and 2,000 validation images with masks; split ``test`` has images only.

    ``label_src``: ``default`` is the official list as the official code cuts it ('coffee' for coffee table,
    'screen' twice), on which the released weights and the published figures rest; ``corrected`` has the full names,
    no two alike; anything else is a file of 150 lines.
    """

    name = "ade20k"
    splits = standard_splits("ADEChallengeData2016") | {"test": ("release_test/testing", None)}
    official_sizes = {"train": 20_210, "val": 2_000}
    mask_values = 150
    fetch_command = "python prepare_ade20k.py --data_path {root}"
    archives = ("ADEChallengeData2016.zip", "release_test.zip")

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The 150 labels of ``label_src``; nothing is read from ``root``."""
        sources = {
            "default": LABEL_FILES / "ade20k_objectInfo150.txt",
            "corrected": LABEL_FILES / "ade20k_corrected.txt",
        }
        return resolve_labels(cls.name, label_src, sources, cls.mask_values)
