"""Resuming a run of the official code from its ``last.ckpt``, a file of Lightning 1.3 to 1.5."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.progress import is_rank_zero

from ..architecture import recognise_backbone
from ..checkpoint_file import CheckpointFile
from ..checkpoint_metadata import METADATA_KEY
from ..checkpoints import fitted
from ..lseg_module import LSegModule
from ..weight_names import OFFICIAL_PREFIX, from_official, to_official

NEEDED = ("state_dict", "optimizer_states", "epoch", "global_step")
LIGHTNING = re.compile(r"1\.[3-5]\.")  # later versions count epochs and steps differently
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
INSTEAD = "Give another --exp_name, or --no_resume; --finetune_weights starts from the weights of a file alone"


def check_training_checkpoint(path: Path, content: Any) -> None:
    """``InputError`` if the file does not contain what resuming needs."""
    missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(
            f"{path} cannot be resumed: it is not a checkpoint of a training, as it lacks "
            f"{', '.join(missing)}. {INSTEAD}"
        )


def official_run(path: Path, content: dict[str, Any], module: LSegModule) -> dict[str, Any]:
    """What Lightning resumes, except ``loops_of``: weights, optimiser state, epoch and step of the official run.

    ``content`` is the file as read. Prints what it does not record, and which rates differ.

    Raises:
        InputError: another network or optimiser, a file of another version of Lightning, or a finished run.
    """
    version, epoch, step = str(content.get("pytorch-lightning_version")), content["epoch"], content["global_step"]
    if not LIGHTNING.match(version) or not (isinstance(epoch, int) and isinstance(step, int)):
        raise InputError(
            f"{path} cannot be resumed: it was written by pytorch-lightning {version}, but runs of the "
            f"official code have 1.3, 1.4 or 1.5. {INSTEAD}"
        )
    if epoch >= module.config.max_epochs:
        raise InputError(f"the run of {path} already finished {epoch} epochs; increase --max_epochs to continue")
    # 1. The weights.
    weights = content["state_dict"]
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise InputError(f"{path} cannot be resumed: its state_dict contains things other than tensors. {INSTEAD}")
    file, backbone = CheckpointFile(path, from_official(weights), {}), module.net.architecture["backbone"]
    if (found := recognise_backbone(file, backbone)) != backbone:
        raise InputError(f"{path} is a {found}, but --backbone is {backbone}; give --backbone {found}")
    state_dict = to_official(fitted(file, module.net))
    # 2. The optimiser.
    optimizer_state = _optimizer_state(path, content, module)
    # 3. What the user should know.
    if is_rank_zero():
        print(f"resuming the official run of {path} at epoch {epoch}, after {step} steps")
        chosen = ["dataset", "labels", "sizes", *module.extra_metadata()]
        print(f"note: the file does not record {', '.join(chosen)}, accumulated batches; this command line decides")
        print(
            "note: seed, order of the images and precision of the official run are unknown: the remaining epochs are "
            f"those of seed {module.seed}, not the ones that the official code would have computed"
        )
        _note_other_settings(content, module)
    states = {"optimizer_states": [optimizer_state], "lr_schedulers": [], "callbacks": {}}
    numbers = {"epoch": epoch, "global_step": step, "pytorch-lightning_version": pl.__version__}
    # The metadata, of which the file has none, tell LSegModule that this can be resumed.
    return {**numbers, "state_dict": state_dict, **states, METADATA_KEY: {}}


def loops_of(trainer: pl.Trainer, content: dict[str, Any]) -> dict[str, Any]:
    """The state of Lightning's loops that belongs to ``official_run``; Lightning's own conversion starts at epoch 0."""
    state, step = trainer.fit_loop.state_dict(), content["global_step"]
    for counts in state["epoch_progress"].values():
        counts.update(dict.fromkeys(counts, content["epoch"]))
    optimizer_steps = state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    optimizer_steps.update(ready=step, completed=step)
    state["epoch_loop.state_dict"]["_batches_that_stepped"] = step
    return {"fit_loop": state}


def _optimizer_state(path: Path, content: dict[str, Any], module: LSegModule) -> dict[str, Any]:
    """The state of the official optimiser for ours.

    The official one numbers its parameters in the order of the file's weights: first the image encoder, then the
    decoder. Those that no forward pass uses have no state.
    """
    names = [
        name
        for part in ("pretrained.", "scratch.")
        for name in content["state_dict"]
        if name.startswith(OFFICIAL_PREFIX + part) and not name.endswith(BUFFERS)
    ]
    try:
        (old,) = content["optimizer_states"]
        numbers = [number for group in old["param_groups"] for number in group["params"]]
        given = {name: dict(old["state"].get(number, {})) for number, name in zip(numbers, names, strict=True)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be resumed: its optimizer_states are not those of one optimiser for the "
            f"{len(names)} weights of image encoder and decoder. {INSTEAD}"
        ) from error
    found = "sgd" if any("momentum_buffer" in state for state in given.values()) else "adam"
    if found != module.config.optimizer:
        raise InputError(
            f"the run of {path} was started differently: optimizer was {found}, is now "
            f"{module.config.optimizer}; give --optimizer {found}"
        )
    wrong = [
        name
        for name, state in given.items()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim and value.shape != content["state_dict"][name].shape
    ]
    if wrong:
        raise InputError(
            f"{path} cannot be resumed: the optimiser state of {len(wrong)} weights, such as {wrong[0]}, has another "
            f"shape than the weight. {INSTEAD}"
        )
    states: dict[str, Any] = from_official(given)  # type: ignore[arg-type]  # it only renames
    name_of = {parameter: name for name, parameter in module.net.named_parameters()}
    optimizer = module.configure_optimizers()
    trained = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    lacking = [name for name in trained if not any(value is not None for value in states[name].values())]
    if lacking:
        raise InputError(
            f"the run of {path} was started differently: {len(lacking)} of {len(trained)} trained weights, such as "
            f"{next(iter(to_official({lacking[0]: None})))}, were not trained in it; give the same --use_pretrained"  # type: ignore[dict-item]
        )
    state = {place: states[name] for place, name in enumerate(trained)}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _note_other_settings(content: dict[str, Any], module: LSegModule) -> None:
    """Print where the command line changes the optimiser or the rate of the file."""
    config, group = module.config, content["optimizer_states"][0]["param_groups"][0]
    for name in ("weight_decay", "momentum"):
        if name in group and group[name] != getattr(config, name):
            print(f"note: {name} was {group[name]} in this run and is {getattr(config, name)} from now on")
    for schedule in content.get("lr_schedulers") or []:
        if not schedule.get("_last_lr"):
            continue  # another kind of scheduler
        epoch, (rate, *_) = schedule["last_epoch"], schedule["_last_lr"]
        now = config.encoder_lr * config.factor(epoch, 0, 0)
        if not math.isclose(rate, now, rel_tol=1e-6):
            print(
                f"note: in epoch {epoch}, the image encoder's rate was {rate:g} in this run and would be {now:g} with "
                "this command line; check --base_lr, --batch_size and --max_epochs"
            )
