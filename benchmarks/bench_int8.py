"""int8 for the ViT's linear layers against float32, on one core: is it accurate enough, and is it faster?

Dynamic quantisation by PyTorch and by ONNX Runtime (which needs the packages of export_lseg.py), with the networks and
pictures of tests/golden. Faithful means: an embedding cosine of at least 0.999 at every pixel on average, and the same
label at 99 % of the pixels. Seconds are processor time, which depends less on other programs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import RESULTS, machine
from benchmarks.measuring import Maker, Process, Work, alternate
from data import get_labels
from lseg_utils.cli import Parser
from lseg_utils.errors import run_script
from lseg_utils.results import text_table, write_json
from modules.checkpoints import from_official
from modules.exporting import ExportTower, trace
from modules.models import LSegNet, build_lseg
from reference import golden_image, golden_state_dict

NETWORKS = {"clip_vitb32_384": "vitb32_arch0", "clip_vitl16_384": "vitl16_arch0"}  # as tests/golden names them
COSINE, AGREEMENT = 0.999, 0.99  # what an int8 network needs at least
HEADER = ("procedure", "seconds", "times as fast", "mean cosine", "same label", "verdict")


def network(backbone: str) -> LSegNet:
    """The golden network with the labels of ADE20K."""
    with torch.device("meta"):
        net = build_lseg(backbone, None)
    net.load_state_dict(from_official(golden_state_dict(NETWORKS[backbone], {})), assign=True)
    net.labels = get_labels("ade20k")
    return net.eval()


def onnx_session(tower: ExportTower, int8: bool) -> Callable[[Tensor], Tensor]:
    """The tower in ONNX Runtime; int8: matrix products only, a scale for each row of the weights."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    with TemporaryDirectory() as folder:
        plain, quantised = f"{folder}/a.onnx", f"{folder}/b.onnx"
        program = torch.onnx.export(trace(tower), dynamo=True, verbose=False, input_names=["images"])
        program.save(plain, external_data=False)
        if int8:
            kinds = ["MatMul", "Gemm"]
            # AVX2 adds two products in 16 bits: 7 bits per weight cannot overflow there.
            quantize_dynamic(plain, quantised, per_channel=True, reduce_range=True, op_types_to_quantize=kinds)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(quantised if int8 else plain, settings, ["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def procedure(options: argparse.Namespace, runtime: str = "torch", int8: bool = False) -> Work:
    """Embeddings of a golden picture."""
    warnings.filterwarnings("ignore")  # PyTorch announces that its quantisation moves to another package
    tower: nn.Module = ExportTower(network(options.backbone)).eval()
    if runtime == "onnx":
        run = onnx_session(tower, int8)
    elif int8:
        blocks = {name for name, each in tower.named_modules() if isinstance(each, nn.Linear) and ".blocks." in name}
        run = torch.ao.quantization.quantize_dynamic(copy.deepcopy(tower), blocks, dtype=torch.qint8)
    else:
        run = tower
    image, spent = golden_image(options.size, options.size, seed=7, batch=1), [0.0]

    @torch.no_grad()
    def embed() -> list[Tensor]:
        started = time.process_time()
        embedding = run(image)
        spent[0] = time.process_time() - started
        return [embedding]

    return Work(embed, 1, seconds=lambda _: spent[0])


MAKERS: dict[str, Maker] = {
    "PyTorch, float32": procedure,
    "PyTorch, int8": partial(procedure, int8=True),
    "ONNX Runtime, float32": partial(procedure, runtime="onnx"),
    "ONNX Runtime, int8": partial(procedure, runtime="onnx", int8=True),
}


def main() -> None:
    """Measure all procedures, print which are faithful and faster, write int8_<backbone>.json."""
    parser = Parser(__doc__)
    parser.add_argument("--backbone", choices=list(NETWORKS), default="clip_vitb32_384", help="measure this backbone")
    parser.add_argument(
        "--size", type=int, default=480, help="use a picture with sides of this many pixels, a multiple of 32"
    )
    parser.add_argument("--rounds", type=int, default=3, help="time this many rounds and report the median")
    options = parser.parse(None)
    options.device, options.threads = "cpu", 1
    torch.set_num_threads(1)
    measured, results = alternate({name: Process(maker, options) for name, maker in MAKERS.items()}, options.rounds)
    net = network(options.backbone)
    with torch.no_grad():
        text = net.encode_labels(net.labels or [])
    embeddings = {name: F.normalize(torch.from_numpy(result[0]), dim=1) for name, result in results.items()}
    labels = {name: torch.einsum("bchw,nc->bnhw", each, text).argmax(1) for name, each in embeddings.items()}
    first, rows, table = next(iter(MAKERS)), [], []
    for name, each in measured.items():
        seconds = statistics.median(each["seconds"])
        cosine = (embeddings[name] * embeddings[first]).sum(1).mean().item()
        same = (labels[name] == labels[first]).float().mean().item()
        faster = statistics.median(measured[first]["seconds"]) / seconds
        problems = [*["not faithful"] * (cosine < COSINE or same < AGREEMENT), *["not faster"] * (faster <= 1)]
        verdict = "" if name == first else ", ".join(problems) or "faithful and faster"
        rows.append({"procedure": name, "seconds": each["seconds"], "faster": faster, "cosine": cosine, "same": same})
        rows[-1]["verdict"] = verdict
        table.append((name, f"{seconds:.2f}", f"{faster:.2f}", f"{cosine:.5f}", f"{same:.2%}", verdict))
    print(text_table(HEADER, table))
    content = {"machine": machine() | {"onnxruntime": version("onnxruntime")}, "size": options.size, "rows": rows}
    write_json(RESULTS / f"int8_{options.backbone}.json", content)


if __name__ == "__main__":
    run_script(main)
