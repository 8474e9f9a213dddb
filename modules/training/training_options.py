"""Every option that the two training scripts share, and everything that can be wrong with them."""

from __future__ import annotations

import argparse

from lseg_utils.cli import Parser

from .options import (
    add_compatibility_options,
    add_network_options,
    add_optimization_options,
    compatibility_problems,
    data_problems,
)
from .start import add_start_options, start_problems
from .trainer import add_trainer_options, trainer_problems


def add_training_options(parser: Parser, backbone: str, exp_name: str) -> None:
    """Network, first weights, optimisation, run, processes, old flags; with their defaults of this script."""
    add_network_options(parser, backbone)
    add_start_options(parser)
    add_optimization_options(parser)
    add_trainer_options(parser, exp_name)
    add_compatibility_options(parser)


def training_problems(options: argparse.Namespace) -> list[str]:
    """What would go wrong, as far as it can be seen without the data."""
    checks = (compatibility_problems, data_problems, trainer_problems, start_problems)
    return [problem for check in checks for problem in check(options)]
