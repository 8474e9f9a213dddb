"""Write the embeddings of a feature store as files that other projects read: float16, one file each or one HDF5 file.

Names stay as they are in the store. Run the command again to resume it, or to add what was added to the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from apps.predict.langsplat import segment_pair
from apps.predict.options import parse_size
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.feature_store import FeatureStore
from lseg_utils.files import unwritable
from lseg_utils.ledger import Ledger
from lseg_utils.lock import locked
from lseg_utils.progress import progress_bar
from modules.choices import LAYOUTS

TYPES = ("npy", "pt", "h5", "langsplat")
LEDGER = "export.jsonl"  # what the files were made with, and the names of those that are finished


def build_parser() -> Parser:
    """The options of this command."""
    parser = Parser(__doc__ or "", prog="python -m apps.predict.export_store")
    parser.add_argument("store", type=Path, metavar="STORE", help="read this store, the folder with manifest.json")
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="write to this folder, new or from the same command"
    )
    parser.add_argument("--type", choices=TYPES, default="npy", help="choose the file type, or LangSplat's pairs")
    parser.add_argument("--layout", choices=LAYOUTS, default="hwc", help="order the axes of npy and pt files")
    parser.add_argument("--size", default="half", help="set height and width: half, input, or HEIGHTxWIDTH")
    parser.add_argument("--suffix", default="", help="end file names with this text, such as _fmap_CxHxW")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write every embedding that is not there yet; ``InputError`` for whatever does not fit."""
    options = build_parser().parse(argv)
    folder, problems = options.folder, []
    if problem := unwritable(folder, "FOLDER"):
        problems.append(problem)
    elif not (folder / LEDGER).exists() and any(path.name[0] != "." for path in folder.iterdir()):
        problems.append(f"{folder} contains files, but no earlier export ({LEDGER}); choose a new or empty FOLDER")
    if options.type not in ("npy", "pt") and options.layout != "hwc":
        problems.append(f"--layout chw is for npy and pt files; leave it out for {options.type}")
    if options.type == "h5" and find_spec("h5py") is None:
        problems.append("--type h5 needs h5py: pip install h5py (or choose npy or pt)")
    if "/" in options.suffix:
        problems.append(f"--suffix {options.suffix!r} contains a /; it is the end of a file's name")
    store, size = raise_all(problems, lambda: opened(options.store), lambda: parse_size(options.size, "--size"))
    pairs = options.type == "langsplat"
    if pairs and not store.labels:
        raise InputError(
            f"{options.store} has no labels, and the segments of --type langsplat are made from them; write "
            "the store with predict_lseg.py --labels"
        )
    about = {name: getattr(options, name) for name in ("type", "layout", "size", "suffix")}
    about |= {name: store.manifest[name] for name in ("checkpoint", "long_side", "codes", "pca", "labels")}
    from apps.predict.embedding_store import STORES  # imports torch: what is wrong with a command is reported before

    with locked(folder, "FOLDER"):
        ledger, files = Ledger(folder / LEDGER, about), STORES["npy" if pairs else options.type](folder)
        # A frame that was stored again since then is exported again.
        stamps = {name: [name, (store.folder / store.file(name)).stat().st_mtime_ns] for name in store.names}
        written = [stamp for stamp in stamps.values() if stamp in ledger.records]
        finished = {name for name, _ in written if files.has(f"{name}{options.suffix}{'_f' * pairs}")}
        pending = [name for name in store.names if name not in finished]
        for name in progress_bar(pending, desc="exporting", unit="frame"):
            if pairs:
                for end, array in zip(("_s", "_f"), segment_pair(store, name, size), strict=True):
                    files.add(f"{name}{options.suffix}{end}", array)
            else:
                embedding = store.frame(name, size).astype(np.float16)  # (H, W, C), unit vectors
                if options.layout == "chw":
                    embedding = np.ascontiguousarray(embedding.transpose(2, 0, 1))
                files.add(f"{name}{options.suffix}", embedding)
            ledger.append(stamps[name])
        files.finish({"size": options.size, "checkpoint": store.manifest["checkpoint"]["sha256"]})
    print(f"{len(pending)} embeddings written, {len(finished)} written before; see {folder}")


def opened(folder: Path) -> FeatureStore:
    """The store; ``InputError`` if it cannot be read."""
    try:
        return FeatureStore(folder)
    except ValueError as error:
        raise InputError(str(error)) from error


if __name__ == "__main__":
    run_script(main)
