"""Reading a PyTorch file without running code from it."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from lseg_utils.errors import InputError


class InertStandIn:
    """Takes the place of a class named in an old file: can be made, filled and used as a key, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> InertStandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


TEXT = frozenset(range(32, 127)) | {9, 10, 13}  # printable bytes: no PyTorch file begins with 64 of them
ZIP = b"PK"  # the beginning of the beginning of one

# What checkpoints of Lightning 1.x hold beside tensors and plain types. None of it is needed, and none of it is
# imported: the names are mapped to stand-ins.
HARMLESS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    "pytorch_lightning.callbacks.progress.ProgressBar",
    "pytorch_lightning.callbacks.progress.base.ProgressBarBase",
    "pytorch_lightning.callbacks.progress.tqdm_progress.TQDMProgressBar",
    "pytorch_lightning.callbacks.timer.Timer",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
STAND_INS = [(type(name.rsplit(".", 1)[-1], (InertStandIn,), {}), name) for name in HARMLESS]
# Filled item by item, which torch allows for plain dictionaries only.
STAND_INS.append((OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"))


def read_torch_file(path: str | Path, trust: bool = False, map_location: str = "cpu") -> Any:
    """What ``torch.save`` wrote, read with ``weights_only``: tensors and plain types, old Lightning's classes inert.

    Args:
        trust: read with full pickle instead, which runs whatever code the file asks for.

    Raises:
        InputError: no such file, truncated or no PyTorch file, or one that names other classes or functions.
    """
    path = Path(path).expanduser()
    _check_there(path)
    _refuse_text(path)
    mapped = zipfile.is_zipfile(path) and not trust  # memory-mapped: parts that are dropped are never read
    try:
        if trust:
            return torch.load(path, map_location=map_location, weights_only=False)
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        forbidden = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if forbidden and not trust:
            raise InputError(
                f"{path} is refused: it asks to use {', '.join(dict.fromkeys(forbidden))}, which a checkpoint has no "
                "need of and which could run code on this machine. If you know where the file comes from and want "
                "that risk, add trust_checkpoint=True, on the command line --trust_checkpoint"
            ) from None
        raise InputError(_damaged(path)) from error
    except ImportError as error:  # only with trust
        raise InputError(f"{path} needs Python code that is not installed here: {error}") from error
    except Exception as error:  # a broken pickle can make the reader stumble anywhere
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{_damaged(path)} ({reason})") from error


def read_torchscript_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """The state dict of a TorchScript archive such as OpenAI's CLIP files, or None if ``path`` is not one."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but OpenAI's files are what they are
        return torch.jit.load(str(path), map_location="cpu").state_dict()


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the checkpoint file in it{_listing(path)}")
    if not path.exists():
        raise InputError(f"there is no file {path}{_listing(path.parent)}")


def _refuse_text(path: Path) -> None:
    """A web page or a Git LFS pointer that was saved under the checkpoint's name."""
    with path.open("rb") as file:
        start = file.read(64)
    if start and not ZIP.startswith(start[: len(ZIP)]) and all(byte in TEXT for byte in start):
        first = start.decode().strip().split("\n")[0]
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is a text file that begins with {first!r}, no checkpoint: a web "
            "page or a Git LFS pointer saved in its place? Fetch the file itself"
        )


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.glob("*") if p.suffix in (".ckpt", ".pth", ".pt")) if folder.is_dir() else []
    return f"; that folder has {', '.join(names[:8])}" if names else ""


def _damaged(path: Path) -> str:
    return (
        f"{path} ({path.stat().st_size:,} bytes) is not a complete PyTorch file: truncated while it was downloaded or "
        "copied, or of another kind; fetch it again"
    )
