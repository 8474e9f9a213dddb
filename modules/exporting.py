"""The image tower for programs without this code: as ONNX and as a torch.export program, checked against PyTorch.

The tower computes ``LSegNet.embed``: pixel embeddings at half the image's size. Labels stay a separate matrix, so one
file serves any label set. Shapes: B images, H x W pixels (multiples of 32), C embedding dimensions.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lseg_utils.errors import InputError
from lseg_utils.files import write_aside

from .models import LSegNet
from .models.backbones import MULTIPLE
from .models.head import LOGIT_SCALE
from .models.upsampling import upsample_x2
from .passport import check_export, passport_of

MIN_SIDE = 2 * MULTIPLE  # tracing treats one token or pixel differently from several
BATCHES = 1 << 20  # images at most; without a limit PyTorch 2.7 refuses the graph
TRACED = (2, 3, 160, 224)  # all sizes differ, none is 1: sizes that are equal while tracing have to stay equal
CHECKED = ((1, 3, 96, 192), (3, 3, 224, 64))
TOLERANCE = 1e-3  # of the largest number of an embedding, or of 1 where all are smaller
METADATA_FILE = "lseg.json"  # inside a .pt2


class ExportTower(nn.Module):
    """``LSegNet.embed`` without its checks; shares image encoder and decoder with the network."""

    def __init__(self, net: LSegNet) -> None:
        super().__init__()
        self.image_encoder, self.decoder = net.image_encoder, net.decoder

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C, H/2, W/2), not normalised."""
        return upsample_x2(self.decoder(self.image_encoder(images)))


def trace(tower: ExportTower) -> ExportedProgram:
    """The tower as a graph in which batch size, height and width can vary."""
    sizes = {0: Dim("batch", max=BATCHES), 2: MULTIPLE * Dim("rows", min=1), 3: MULTIPLE * Dim("columns", min=1)}
    return torch.export.export(tower, (_noise(TRACED),), dynamic_shapes={"images": sizes})


def facts(net: LSegNet) -> dict[str, Any]:
    """What a program needs in order to use the tower, in plain types."""
    return {
        "input": "images: (batch, 3, height, width) float32, RGB, (value / 255 - mean) / std; height and width "
        f"multiples of {MULTIPLE}, at least {MIN_SIDE}",
        "output": "embedding: (batch, C, height / 2, width / 2) float32, not normalised. Logits of labels: unit "
        "vectors of both, product, times logit_scale, then bilinear x2 with aligned corners",
        "long_side": net.base_size,  # the size that images should be resized to
        "mean": list(net.mean),
        "std": list(net.std),
        "logit_scale": LOGIT_SCALE,
        "architecture": net.architecture,
        "passport": passport_of(net),
        "torch": torch.__version__,
    }


def write_program(program: ExportedProgram, path: Path, tower: ExportTower, about: dict[str, Any]) -> dict[str, Any]:
    """Write a .pt2 for ``torch.export.load``; return what describes it."""
    with write_aside(path) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # the file is checked below
        torch.export.save(program, aside, extra_files={METADATA_FILE: json.dumps(about)})
        try:
            loaded = torch.export.load(aside).module()
        except Exception as error:  # PyTorch 2.14 writes a Swin that it cannot read back
            raise _unfit(path, f"cannot be read back by PyTorch {torch.__version__}") from error

        def run(images: np.ndarray) -> np.ndarray:
            """What the file computes."""
            with torch.inference_mode():
                return loaded(torch.from_numpy(images)).numpy()

        difference = checked(path, run, tower)
        check_export(path.name, run, about)
    return {"largest_difference": difference}


def write_onnx(program: ExportedProgram, path: Path, tower: ExportTower, about: dict[str, Any]) -> dict[str, Any]:
    """Write an .onnx with ``about`` and its opset as metadata; return what describes it."""
    import onnxruntime

    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()  # as many as PyTorch uses
    onnx_program: Any = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["images"], output_names=["embedding"]
    )
    model = onnx_program.model
    opset = model.opset_imports[""]
    for key, value in {**about, "opset": opset}.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    with write_aside(path) as aside:
        onnx_program.save(aside, external_data=False)
        session = onnxruntime.InferenceSession(aside, threads, providers=["CPUExecutionProvider"])

        def run(images: np.ndarray) -> np.ndarray:
            """What the file computes."""
            return session.run(None, {"images": images})[0]

        difference = checked(path, run, tower)
        check_export(path.name, run, about)
    return {"opset": opset, "largest_difference": difference}


@torch.inference_mode()
def checked(path: Path, run: Callable[[np.ndarray], np.ndarray], tower: ExportTower) -> float:
    """The largest difference between ``run`` and the tower, relative to the largest number or 1, over ``CHECKED``.

    Raises:
        InputError: it is above ``TOLERANCE``, or a size is refused.
    """
    worst = 0.0
    for size in CHECKED:
        images = _noise(size)
        expected = tower(images).numpy()
        try:
            difference = np.abs(run(images.numpy()) - expected).max() / max(1.0, np.abs(expected).max())
        except Exception as error:  # whatever a runtime raises means the same
            raise _unfit(path, f"refuses a batch of {size}: {str(error).splitlines()[0][:200]}") from error
        if not difference <= TOLERANCE:  # NaN too
            raise _unfit(path, f"differs from PyTorch by {difference:.1e} at {size}, more than {TOLERANCE:.0e}")
        worst = max(worst, float(difference))
    return worst


def _unfit(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name} was not kept: the exported network {what}. The versions of torch, onnxscript and onnxruntime may "
        "not fit together; install newer ones: pip install -U -r requirements-extras.txt"
    )


def _noise(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0))
