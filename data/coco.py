"""COCO-20i: the 80 classes of COCO 2014 in four folds of twenty, every fourth class."""

from __future__ import annotations

from pathlib import Path

from data.episodes import COCO_CLASSES
from data.fewshot import VOID, FewShotDataset


class Coco(FewShotDataset):
    """``COCO2014/{train2014,val2014}`` with HSNet's masks, value = class index + 1, in ``COCO2014/annotations``.

    Training draws classes uniformly, as published: 28 % of the pairs of folds 1 to 3 show persons.
    """

    name = "coco"
    num_labels = COCO_CLASSES
    special_values = {255: VOID}
    class_balanced = True
    source = (
        "How to fix it: the images are in train2014.zip and val2014.zip (images.cocodataset.org/zips), the masks are "
        "those that the README of HSNet (github.com/juhongm999/hsnet) links to, not COCO's own annotations; unpack "
        "them into {root}/COCO2014 and {root}/COCO2014/annotations, or give another folder with --datapath"
    )

    @classmethod
    def files_of(cls, root: Path, image: str) -> tuple[Path, Path]:
        """``image``: folder and file name, such as ``val2014/COCO_val2014_000000507081.jpg``."""
        return root / f"COCO2014/{image}", root / f"COCO2014/annotations/{image.removesuffix('.jpg')}.png"
