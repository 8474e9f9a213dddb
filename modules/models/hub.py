"""A network as a folder of the Hugging Face hub: ``model.safetensors``, ``config.json`` and ``README.md``.

The weights have official names without the prefix ``net.``; ``config.json`` says the same as the metadata of our
checkpoints, and the fingerprint of the weights. Both files are read without running code from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor

from .build import build_lseg
from .fingerprint import fingerprint
from .model_card import model_card
from .precision import channels_last
from .pretrained import not_finite

if TYPE_CHECKING:
    from typing_extensions import Self

    from .network import LSegNet as Network

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
# What a configuration contains of a checkpoint's metadata. Paths of files and folders stay where they are.
PUBLISHED = ("passport", "dataset", "zero_shot", "epoch", "step", "metric", "optimization", "git")


def config_of(net: Network, weights_sha256: str) -> dict[str, Any]:
    """The content of ``config.json``, in plain types. ``weights_sha256``: the weights' fingerprint."""
    return {
        **net.describe(),
        "fingerprint": weights_sha256,
        **{key: net.metadata[key] for key in PUBLISHED if key in net.metadata},
    }


def write_folder(
    folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], card: ModelCard | None = None
) -> None:
    """Write the files, each in one step; the fingerprint tells whether they belong together."""
    folder.mkdir(parents=True, exist_ok=True)

    def replace(name: str, write: Any) -> None:
        """Write aside, then rename."""
        aside = folder / f".{name}.aside"
        write(aside)
        os.replace(aside, folder / name)

    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    replace(WEIGHTS, lambda aside: save_file(content, aside, metadata={"format": "pt"}))
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    replace(CONFIG, lambda aside: aside.write_text(text, encoding="utf-8"))
    if card is not None:
        replace(CARD, lambda aside: aside.write_text(str(card), encoding="utf-8"))


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights under their names in the file, and the configuration.

    Raises:
        ValueError: a file that is missing, damaged, or not what its name says.
    """
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; write such a folder with LSegNet.save_pretrained, or "
            "python -m modules.zoo convert CHECKPOINT FOLDER --layout hub"
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON ({error}); copy or download the folder again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} contains {repr(config)[:60]} instead of a network's description")
    try:
        return load_file(folder / WEIGHTS), config
    except Exception as error:  # safetensors has its own exception; whatever it is, the file is unusable
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy or download it again") from error


class HubFiles(ModelHubMixin):
    """``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` of the official-shaped networks."""

    network: Network

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin builds networks from keywords, this one from the files
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str | torch.device = "cpu",
    ) -> Self:
        """The network of a folder, or of a name on the hub, in eval mode on the device ``map_location``.

        The other arguments are those of ``huggingface_hub.hf_hub_download``.

        Raises:
            ValueError: no such folder or name, files that are damaged or do not belong together, weights that are NaN.
            RuntimeError: weights that are missing or unexpected, by name.
        """
        folder = Path(pretrained_model_name_or_path).expanduser()
        if not folder.is_dir():
            asked: Any = {
                "repo_id": str(pretrained_model_name_or_path),
                "cache_dir": cache_dir,
                "force_download": force_download,
                "token": token,
                "local_files_only": local_files_only,
            }
            try:
                folder = Path(hf_hub_download(filename=CONFIG, revision=revision, **asked)).parent
                # The cache's folder is called after the commit: both files come from one, whatever is pushed meanwhile.
                hf_hub_download(filename=WEIGHTS, revision=folder.name, **asked)
            except Exception as error:  # a dozen classes, by cause; the advice is the same
                raise ValueError(
                    f"{pretrained_model_name_or_path} is neither a folder here nor a model on the hub that could be "
                    f"downloaded ({str(error).strip().splitlines()[0]}); check the name (USER/NAME), the network and, "
                    "for a private model, token="
                ) from error
        return cls._of_folder(folder, map_location)

    @classmethod
    def _of_folder(cls, folder: Path, device: str | torch.device) -> Self:
        weights, config = read_folder(folder)
        try:
            with torch.device("meta"):
                network = build_lseg(labels=None, **config["architecture"])
            network.follow(config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{folder / CONFIG} describes no network that this version can build ({error!r})"
            ) from error
        if broken := not_finite(weights):
            raise ValueError(f"{folder / WEIGHTS} contains NaN or infinite numbers, first in {next(iter(broken))}")
        net = cls.of(network)  # type: ignore[attr-defined]  # LSegNet has it
        expected = net.state_dict()
        fitting = {
            name: tensor.to(expected[name].dtype, copy=True) if name in expected else tensor
            for name, tensor in weights.items()
        }
        net.load_state_dict(fitting, assign=True)
        if config.get("fingerprint") not in (None, fingerprint(network.state_dict())):
            raise ValueError(
                f"{folder / WEIGHTS} does not belong to {folder / CONFIG}: its fingerprint differs. Download or "
                "write both again"
            )
        return cls.of(channels_last(network.to(device), network.architecture["features"]).eval())  # type: ignore[attr-defined]

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by the mixin's ``save_pretrained``, which also writes the card unless there is one."""
        weights: Any = self.state_dict()  # type: ignore[attr-defined]  # of nn.Module
        write_folder(save_directory, weights, config_of(self.network, fingerprint(self.network.state_dict())))

    def generate_model_card(self, name: str = "lseg", **more: Any) -> ModelCard:
        """The card. ``save_pretrained(folder, model_card_kwargs={...})`` passes ``name``, ``results`` and ``notes``."""
        return model_card(name, config_of(self.network, fingerprint(self.network.state_dict())), **more)
