"""The miniature world as a dataset: ADE20K's layout, 36 compositions of colour and shape, four textures."""

from __future__ import annotations

from pathlib import Path

from data.base import FolderSegmentationDataset
from data.labels import read_label_file, resolve_labels
from data.pairs import standard_splits
from lseg_utils.errors import InputError
from miniature.folder import read_settings
from miniature.names import LABELS, SEEN
from miniature.world import FOLDER, SIZE


class Miniature(FolderSegmentationDataset):
    """Training images show the 34 seen labels only; validation images also the 6 unseen compositions.

    ``label_src``: ``seen`` (34 labels; pixels of unseen labels count as unlabelled), ``all`` (40), ``synonyms``
    (40 names that no LSeg training ever used), or a file of 40 lines. Default: ``seen`` for training and for the
    validation that chooses checkpoints, ``all`` for a test.
    """

    name = "miniature"
    splits = standard_splits(FOLDER)
    mask_values = len(LABELS)
    fetch_command = "python -m miniature.prepare --data_path {root}"
    base_size = SIZE
    crop_size = SIZE
    scale_range = (0.8, 1.25)  # objects are small already

    @classmethod
    def read_labels(cls, label_src: str, root: Path) -> list[str]:
        """The labels of ``label_src``, from the files next to the images."""
        if read_settings(root / FOLDER) is None:
            text = f"{cls.name}: there is no finished world in {root / FOLDER}"
            remedy = f"run `{cls.fetch_command.format(root=root)}`, or give another folder with --data_path"
            raise InputError(f"{text}. How to fix it: {remedy}")
        sources = {"all": root / FOLDER / "labels.txt", "synonyms": root / FOLDER / "synonyms.txt"}
        if label_src == "seen":
            return read_label_file(sources["all"])[0][: len(SEEN)]
        return resolve_labels(cls.name, label_src, sources, len(LABELS))

    @classmethod
    def default_label_src(cls, split: str, mode: str) -> str:
        return "all" if mode in ("testval", "test") else "seen"

    @property
    def groups(self) -> dict[str, list[int]]:
        """Seen labels, and those that occur in no training mask."""
        unseen = list(range(len(SEEN), self.num_class))
        return {"seen": list(range(len(SEEN))), **({"unseen": unseen} if unseen else {})}
