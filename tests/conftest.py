"""Shared fixtures: the two large golden networks are built once for the whole run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from modules.models import LSegNet

# The fixtures import torch and this project: the process that hands tests out to others needs neither.

# A shell ignores Ctrl-C for commands that it starts in the background, and so would every script that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# timm imports wandb where it is installed, which takes a second of every process and is of no use to a test.
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LSEG_SHARED", REPOSITORY.parent / "shared")) / "data"


def pytest_collection_finish() -> None:
    """By now all is imported: tests find wandb again."""
    if sys.modules.get("wandb") is None:
        sys.modules.pop("wandb", None)


@pytest.fixture(scope="session")
def golden_net() -> Callable[..., LSegNet]:
    """``golden_net(network, backbone, **options)``: our network with the official network's golden weights."""
    import torch

    from data import get_labels
    from modules.checkpoints import from_official
    from modules.models import build_lseg
    from reference import golden_state_dict

    last: dict[tuple, LSegNet] = {}
    weights: dict[str, Tensor] = {}

    def build(network: str, backbone: str, **options: object) -> LSegNet:
        key = (network, backbone, *sorted(options.items()))
        if key not in last:
            last.clear()  # one at a time: the largest has 400 million weights
            with torch.device("meta"):
                net = build_lseg(backbone, None, **options)
            # Weights of the same name and shape are the same in all networks: all of CLIP's text tower, for one.
            made = golden_state_dict(network, weights)
            weights.clear()
            weights.update(made)
            net.load_state_dict(from_official(made), assign=True)
            net.labels = get_labels("ade20k")
            last[key] = net
        return last[key].eval()

    return build


@pytest.fixture
def sample_folder() -> Path:
    """Three real ADE20K images with masks; tests that need them skip where they are not at hand."""
    folder = SHARED / "ade20k_sample"
    if not folder.is_dir():
        pytest.skip(f"no sample images in {folder} (set LSEG_SHARED)")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny networks are many times slower on several threads while another job runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
