"""What the two test scripts are asked to do: their options, and values that check themselves. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lseg_utils.cli import Parser
from lseg_utils.errors import raise_all
from lseg_utils.files import REPOSITORY, unwritable

from ..choices import block_options
from ..options import NO_EFFECT, add_weights_options, weights_name
from ..weights_file import check_weights_file

if TYPE_CHECKING:
    from ..models import LSegNet


def add_test_options(parser: Parser) -> None:
    """The fields of ``TestRun`` that both scripts share."""
    add_weights_options(parser)
    add = parser.add_argument_group("test").add_argument
    shuffle = "control experiment: exchange the labels' embeddings at random, with this seed"
    add("--shuffle_labels", type=int, metavar="SEED", help=shuffle)
    add("--output_dir", type=Path, help="write the results to this folder; default: outputs/<dataset>_<weights>")
    log = "append a line per test to a log in this folder"
    add("--log_dir", "--logpath", type=Path, default=REPOSITORY / "logs", help=log)
    add("--jobname", default="default", help="add this name to the log's file name")
    add("--seed", type=int, default=0, help="seed everything that a test draws at random")


def add_protocol_options(parser: Parser) -> None:
    """The published protocol, or a variant of it: the fields of ``Protocol``."""
    add = parser.add_argument_group("protocol").add_argument
    protocols = "official: six scales, each with its mirror image, as published; single: a quick test at scale 1 only"
    add("--protocol", choices=("official", "single"), default="official", help=protocols)
    add("--scales", type=float, nargs="+", help="use these scales instead of those of the protocol")
    add("--no_flip", action="store_true", help="leave out the mirror images")
    batch = "send this many crops through the network at once; auto: as many as fit into the free memory"
    add("--window_batch", type=_number_or_auto, default="auto", help=batch)


def add_official_test_options(parser: Parser, *without_effect: str) -> None:
    """Flags of the official test scripts; those listed in ``without_effect`` are the script's own."""
    add = parser.add_argument_group("further official flags").add_argument
    add("--no_cuda", dest="device", action="store_const", const="cpu", help="run on the CPU, as with --device cpu")
    add("--no_strict", action="store_true", help="accepted; an incomplete checkpoint is refused in any case")
    add("--ignore_index", type=int, help="accepted; unlabelled pixels never count, whatever their value")
    add("--no_val", action="store_true", help=NO_EFFECT)
    for flag in ("test_batch_size", *without_effect):
        add(f"--{flag}", nargs="?", const="", help=NO_EFFECT)


def _number_or_auto(text: str) -> int | None:
    return None if text == "auto" else int(text)


@dataclass(frozen=True)
class TestRun:
    """One test of one checkpoint: what is loaded, which control is applied, where results go.

    Attributes:
        name: what is tested, such as "ade20k" or "pascal_fold0_0shot"; the default folder is named after it.
        writes_results: whether the folders of the results and the log must be writable.
        backbone: the backbone that the checkpoint must have; None: any.
        arch_option, block_depth, activation: what the shapes of an official file cannot tell.
        shuffle_labels: seed of the control experiment that exchanges the labels' embeddings; None: no control.

    The other fields are the options of the same names.
    """

    __test__ = False  # its name must not make pytest collect it

    name: str
    weights: Path
    writes_results: bool = True
    trust_checkpoint: bool = False
    backbone: str | None = None
    arch_option: int | None = None
    block_depth: int | None = None
    activation: str | None = None
    shuffle_labels: int | None = None
    output_dir: Path | None = None
    log_dir: Path = REPOSITORY / "logs"
    jobname: str = "default"
    seed: int = 0

    def __post_init__(self) -> None:
        seeds = {"--seed": self.seed, "--shuffle_labels": self.shuffle_labels}
        problems = [f"{flag} is {seed}; give at least 0" for flag, seed in seeds.items() if (seed or 0) < 0]
        folders = {"--output_dir": self.folder, "--log_dir": self.log_dir} if self.writes_results else {}
        problems += [text for flag, folder in folders.items() if (text := unwritable(folder, flag))]
        (weights,) = raise_all(problems, lambda: check_weights_file(self.weights))
        object.__setattr__(self, "weights", weights)

    @property
    def folder(self) -> Path:
        """Where results go; a control does not overwrite the test that it belongs to."""
        control = "" if self.shuffle_labels is None else f"_shuffled{self.shuffle_labels}"
        return self.output_dir or REPOSITORY / "outputs" / f"{self.name}_{weights_name(self.weights)}{control}"

    def load(self) -> LSegNet:
        """The network of the checkpoint, on the CPU; ``InputError`` if ``backbone`` names another one."""
        from ..checkpoints import load_lseg

        given = {"backbone": self.backbone, **block_options(self)}
        return load_lseg(self.weights, trust_checkpoint=self.trust_checkpoint, **given)


@dataclass(frozen=True)
class Protocol:
    """How a test looks at an image: its scores are summed over scales, mirror images and sliding windows.

    Attributes:
        scales: of the image's long side, relative to the dataset's ``base_size``; None: the six published ones.
        flip: whether the mirror image is added at each scale.
        window_batch: crops per forward pass, which changes time and memory alone; None: as many as fit.
    """

    scales: tuple[float, ...] | None = None
    flip: bool = True
    window_batch: int | None = None

    def __post_init__(self) -> None:
        wrong = [scale for scale in self.scales or () if not 0 < scale < math.inf]
        problems = [f"--scales contains {scale}; give positive numbers" for scale in wrong]
        if self.window_batch is not None and self.window_batch < 1:
            problems.append(f"--window_batch is {self.window_batch}; give at least 1, or auto")
        raise_all(problems)

    @classmethod
    def named(cls, protocol: str, scales: list[float] | None, no_flip: bool, window_batch: int | None) -> Protocol:
        """From ``--protocol`` and what departs from it."""
        if protocol == "single":
            return cls(tuple(scales or (1.0,)), False, window_batch)
        return cls(tuple(scales) if scales else None, not no_flip, window_batch)

    def describe(self, base_size: int, crop_size: int) -> str:
        """The protocol's name, or what departs from the published one, and the sizes."""
        from encoding_ext.views import TEST_SCALES

        sizes = f"windows of {crop_size}, base {base_size}"
        scales = self.scales or TEST_SCALES
        if scales == TEST_SCALES and self.flip:
            return f"official (six scales, flip), {sizes}"
        if scales == (1.0,) and not self.flip:
            return f"single (scale 1, no flip), {sizes}"
        return f"scales {' '.join(map(str, scales))}{', flip' if self.flip else ', no flip'}, {sizes}"
