"""Pascal-5i: the 20 classes of Pascal VOC 2012 in four folds of five."""

from __future__ import annotations

from pathlib import Path

from data.episodes import PASCAL_CLASSES
from data.fewshot import IGNORED, FewShotDataset


class Pascal(FewShotDataset):
    """``VOC2012/JPEGImages`` with the masks of ``VOC2012/SegmentationClassAug``; metrics ignore their borders, 255."""

    name = "pascal"
    num_labels = PASCAL_CLASSES
    special_values = {255: IGNORED}
    source = (
        "How to fix it: the images are in VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk/pascal/VOC/voc2012), the "
        "masks in SegmentationClassAug.zip, which the README of HSNet (github.com/juhongm999/hsnet) links to; unpack "
        "them into {root}/VOC2012, or give another folder with --datapath"
    )

    @classmethod
    def files_of(cls, root: Path, image: str) -> tuple[Path, Path]:
        """``image``: the file name without its extension, as in the split files."""
        return root / f"VOC2012/JPEGImages/{image}.jpg", root / f"VOC2012/SegmentationClassAug/{image}.png"
