"""Reading a PyTorch file without running code from it."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from lseg_utils.errors import InputError

from .weights_file import check_weights_file


class InertStandIn:
    """Replaces a class that an old file names: it can be created, filled and used as a key, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> InertStandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


# What checkpoints of Lightning 1.x contain besides tensors and plain types. None of it is needed, and none of it is
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
    "pathlib._local.PosixPath",  # written by Python 3.13
    "pathlib._local.WindowsPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
STAND_INS: list[Any] = [(type(name.rsplit(".", 1)[-1], (InertStandIn,), {}), name) for name in HARMLESS]
# It is filled item by item, which torch allows for plain dictionaries only.
STAND_INS.append((OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"))


def read_torch_file(path: str | Path, trust: bool = False) -> Any:
    """What ``torch.save`` wrote, read with ``weights_only``: tensors and plain types, old Lightning's classes inert.

    Args:
        trust: read with full pickle instead, which runs whatever code the file contains.

    Raises:
        InputError: no such file, one that is damaged or not a PyTorch file, or one that names other classes or
            functions.
    """
    path = check_weights_file(path)
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        check_archive(path)
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(STAND_INS):
            # Memory-mapped: parts that are dropped later are never copied.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except ImportError as error:  # only with trust
        raise InputError(f"{path} needs Python code that is not installed here: {error}") from error
    except Exception as error:  # a broken pickle can make the reader stumble anywhere
        raise _refusal(path, error) from None


def check_archive(path: Path) -> None:
    """``InputError`` for a zip archive of which a byte has changed since it was written; PyTorch does not check."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a broken header can make the reader stumble anywhere
        raise _refusal(path, error) from error
    if broken is not None:
        raise InputError(f"{_damaged(path)} (the checksum of {broken} is wrong)")


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; ``InputError`` for a damaged one."""
    from safetensors.torch import load_file

    try:
        return load_file(check_weights_file(path))
    except InputError:
        raise
    except Exception as error:  # its own error has no common base class
        raise _refusal(path, error) from error


# ------------------------------------------------------------------------------------------------- TorchScript


class ScriptObject:
    """An object of a TorchScript archive: the name and value of its attributes, none of its code."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


STORAGES = {
    **{"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16},
    **{"DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}


class ScriptReader(pickle.Unpickler):
    """Reads the objects of a TorchScript archive. ``torch.jit.load`` would run code that the file contains.

    Only the names in ``find_class`` are allowed, and each stands for something made for this one file.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """The harmless stand-in for an allowed name; ``UnpicklingError`` for any other."""
        if module.split(".")[0] == "__torch__":
            return type("ScriptObject", (ScriptObject,), {})
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *others: storage.as_strided(size, stride, offset)
        if module == "torch.jit._pickle":  # typed lists and the like
            return lambda value=None, *others: value
        if (module, name) == ("collections", "OrderedDict"):
            return lambda *pairs: dict(*pairs)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, identity: Any) -> torch.Tensor:
        """The numbers of a storage as a flat tensor."""
        _, dtype, name, *_ = identity
        content = bytearray(self.archive.read(f"{self.folder}data/{name}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def read_torchscript_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """The parameters and buffers in a TorchScript archive such as OpenAI's CLIP files; None if ``path`` is not one.

    Raises:
        InputError: a damaged archive, or one that asks for anything but tensors.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            marks = [name for name in archive.namelist() if name.endswith("/constants.pkl")]
            if not marks:
                return None
            top = ScriptReader(archive, marks[0].removesuffix("constants.pkl")).load()
    except Exception as error:  # a broken pickle can make the reader stumble anywhere
        raise _refusal(path, error) from error
    weights, waiting, seen = {}, [("", top)], set()
    while waiting:
        prefix, thing = waiting.pop()
        if isinstance(thing, torch.Tensor):
            weights[prefix.removesuffix(".")] = thing
        elif isinstance(thing, ScriptObject) and isinstance(thing.attributes, dict) and id(thing) not in seen:
            seen.add(id(thing))
            waiting.extend((f"{prefix}{name}.", value) for name, value in thing.attributes.items())
    return weights


# ---------------------------------------------------------------------------------------------- what is refused


def _refusal(path: Path, error: Exception) -> InputError:
    """Why the file cannot be read: it names classes or functions that are not allowed, or it is damaged."""
    forbidden = re.findall(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else []
    if forbidden:
        return InputError(
            f"{path} is refused: it tries to use {', '.join(dict.fromkeys(forbidden))}, which a checkpoint does not "
            "need and which could run code on this machine. If you trust the source of the file and accept that "
            "risk, add trust_checkpoint=True, on the command line --trust_checkpoint"
        )
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return InputError(f"{_damaged(path)} ({reason})")


def _damaged(path: Path) -> str:
    return (
        f"{path} ({path.stat().st_size:,} bytes) is not a complete PyTorch file: truncated or damaged while it was "
        "downloaded or copied, or of another kind; download it again"
    )
