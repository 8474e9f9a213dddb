"""Count the floating-point operations of a training step per image and the memory that weights and optimiser take.

A multiplication with an addition counts as two. PyTorch counts on meta tensors, so this runs anywhere.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lseg_utils.results import text_table
from modules.models import BACKBONES, build_lseg


def count(backbone: str, side: int, labels: int) -> tuple[float, float, float, float]:
    """(forward GFLOP, forward + backward GFLOP, million trained weights, GB of weights + gradients + momentum)."""
    with torch.device("meta"):
        net = build_lseg(backbone, None).train()
        image, text = torch.empty(2, 3, side, side), torch.empty(labels, net.decoder.embedding.out_channels)
        with FlopCounterMode(display=False) as counter:
            logits = net(image, text)
        forward = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            logits.sum().backward()
        backward = counter.get_total_flops()
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return forward / 2e9, (forward + backward) / 2e9, trained / 1e6, 3 * 4 * trained / 1e9


def main() -> None:
    """Print one row per backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=480, help="side of the square image in pixels")
    parser.add_argument("--labels", type=int, default=150)
    options = parser.parse_args()
    names = [name for name in BACKBONES if not name.startswith("tiny")]
    header = ("backbone", "forward GFLOP", "training GFLOP", "trained M", "weights + gradients + momentum GB")
    print(text_table(header, [(name, *count(name, options.side, options.labels)) for name in names]))


if __name__ == "__main__":
    main()
