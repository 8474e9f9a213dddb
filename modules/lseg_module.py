"""LSeg as a LightningModule: one fixed label set, loss, rates, metrics, and checkpoints that describe themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.metrics import SegmentationMetric
from lseg_utils.errors import InputError
from lseg_utils.files import REPOSITORY

from .checkpoint_metadata import METADATA_KEY, metadata_of
from .checkpoints import from_official, load_lseg, to_official
from .models import LSegNet
from .models.lseg_net import LSegNet as OfficialNet
from .models.network import Labels
from .models.streaming import Unions, upsampled_cross_entropy, upsampled_max
from .models.upsampling import upsample_x2
from .training.optimization import OptimizationConfig
from .training.optimizer import apply_settings, build_optimizer

if TYPE_CHECKING:
    from typing_extensions import Self


# Keywords of the official scripts: they describe a training, or what the file tells itself.
WITHOUT_EFFECT = frozenset(
    "data_path aux num_features aux_weight se_loss se_weight base_lr batch_size max_epochs ignore_index dropout "
    "scale_inv augment no_batchnorm widehead widehead_hr strict weight_decay midasproto momentum test_batch_size "
    "hparams_file no_scaleinv".split()
)


def ade20k_labels(dataset: str = "ade20k") -> list[str]:
    """The names in an official table of labels, [] without one: last column, the piece before the first ``;``."""
    name = f"{dataset}_objectInfo150.txt"
    for path in (Path("label_files", name), REPOSITORY / "data" / "label_files" / name):
        if path.is_file():
            rows = path.read_text(encoding="utf-8").splitlines()[1:]
            return [row.split(",")[-1].split(";")[0].strip() for row in rows]
    return []


class NonFiniteLossError(InputError):
    """The loss or a score became infinite or NaN; the message names the step and the files."""


class LSegModule(pl.LightningModule):
    """Trains and validates an ``LSegNet`` on batches of ``data.loading`` (``image``, ``mask``, ``index``, ``skipped``).

    Args:
        net: the network, with its labels.
        config: optimiser, rates and schedule.
        dataset, data_path: name of the dataset and its folder (None: the default one), for the checkpoint.
        dataset_file: the YAML file that describes the dataset; None: one of the known ones.
        seed: of everything random inside the network (dropout).

    Attributes:
        mean, std, base_size, crop_size: of the network; the official evaluators read them here, and may change them.
        flavour: whose copy of this class is meant where copies differ: "official", "openscene", "dff" or
            "feature_3dgs"; see ``forward``. Set it on the class or on the object.
        run_facts: what else a resumed run must have in common with the checkpoint, which records it.
        settings: all settings by group, for the logger.
    """

    flavour = "official"
    _up_kwargs = {"mode": "bilinear", "align_corners": True}

    def __init__(
        self,
        net: LSegNet,
        config: OptimizationConfig | None = None,
        *,
        dataset: str | None = None,
        data_path: Path | None = None,
        dataset_file: Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.mean, self.std = list(net.mean), list(net.std)
        self.base_size, self.crop_size = net.base_size, net.crop_size
        self.config = config or OptimizationConfig()
        self.dataset, self.data_path, self.dataset_file = dataset, data_path, dataset_file
        self.seed = seed
        self.metric: Any = SegmentationMetric(len(net.labels)) if net.labels else None  # a subclass may have another
        self.skipped: list[str] = []
        self.run_facts: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # its options are not Lightning's
        cls, checkpoint_path: str | Path, map_location: str = "cpu", **options: Any
    ) -> Self:
        """A module around the network of an official or own file. It needs no dataset.

        ``net`` then has the official names (``modules.models.lseg_net.LSegNet``) besides ours. A file without labels
        gets those of ADE20K, as officially.

        Args:
            options: as for ``checkpoints.load_lseg``, and the keywords of the official scripts, ``map_locatin`` too.
                Those in ``WITHOUT_EFFECT`` change nothing; ``strict=False`` forgives nothing.
        """
        options = {name: value for name, value in options.items() if name not in WITHOUT_EFFECT}
        cityscapes = options.pop("dataset", None) == "citys"
        network = load_lseg(checkpoint_path, map_location=options.pop("map_locatin", map_location), **options)
        if network.labels is None and (labels := ade20k_labels()):
            network.labels = labels
        module = cls(OfficialNet.of(network))  # type: ignore[arg-type]  # it passes on what our network has
        if cityscapes:
            module.base_size, module.crop_size = 2048, 768
        return module.eval()

    def forward(self, x: Tensor, labelset: Any = "", return_feature: bool = False) -> Tensor:
        """(B, 3, H, W) -> (B, N, H, W) logits; labels as for ``net``, "" or None for its own.

        With ``return_feature``, pixel embeddings (B, C, H, W) instead; unit vectors if ``flavour`` is "dff". If it is
        "openscene", "" gives unit vectors (B, C, H/2, W/2).
        """
        own = labelset is None or (isinstance(labelset, str) and not labelset)
        if return_feature:
            features = upsample_x2(self.net.embed(x))
            return F.normalize(features, dim=1) if self.flavour == "dff" else features.contiguous()
        if own and self.flavour == "openscene":
            return F.normalize(self.net.embed(x).contiguous(), dim=1)
        return self.net(x, None if own else labelset)

    def evaluate(self, x: Tensor, *, return_feature: bool = False) -> Tensor:
        """As ``forward`` with the own labels; the official evaluators call it."""
        return self(x, return_feature=return_feature)

    def evaluate_random(self, x: Tensor, labelset: Any) -> Tensor:
        """As ``forward`` with other labels; the official evaluators call it."""
        return self(x, labelset)

    @property
    def num_classes(self) -> int:
        """How many labels the network has."""
        return len(self.net.labels or ())

    @property
    def val_transform(self) -> Any:
        """From a picture to the network's input: torchvision's ``ToTensor`` and ``Normalize``."""
        from torchvision import transforms

        return transforms.Compose([transforms.ToTensor(), transforms.Normalize(self.mean, self.std)])

    def get_labels(self, dataset: str = "ade20k") -> list[str]:
        """The labels of ``label_files/DATASET_objectInfo150.txt``, officially read; here, or in this repository."""
        if labels := ade20k_labels(dataset):
            return labels
        raise InputError(f"there is no label_files/{dataset}_objectInfo150.txt in this folder; copy it there")

    # ------------------------------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Log the settings; TensorBoard's logger writes them to hparams.yaml."""
        if stage == "fit" and self.logger and self.settings:
            self.logger.log_hyperparams(self.settings)

    def on_train_start(self) -> None:
        self.train()  # load_from_checkpoint gives a module in eval mode, which Lightning would leave so
        self.total_steps = int(self.trainer.estimated_stepping_batches)
        apply_settings(self.trainer.optimizers[0], self.config)

    def on_train_epoch_start(self) -> None:
        # Random numbers depend on the seed and the epoch alone, so a resumed run draws the same as an undisturbed one.
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        factor = self.config.factor(self.current_epoch, self.global_step, self.total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch; ``NonFiniteLossError`` with step and files if it is infinite or NaN."""
        loss, images = self.batch_loss(batch, batch_idx)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._where(f"the loss is {loss.item()}", self.trainer.train_dataloader, batch))
        self.skipped += [reason for reason in batch["skipped"] if reason]
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=images)
        return loss

    def batch_loss(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, int]:
        """The loss of a batch, and how many images it is of."""
        images, masks, labels = self.training_images(batch)
        return self.loss(self.net.half_logits(images, labels), masks), len(images)

    def training_images(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Labels | None]:
        """What a step learns from: images (B, 3, H, W), masks (B, H, W), labels (None: the network's own)."""
        return batch["image"], batch["mask"], None

    def on_train_epoch_end(self) -> None:
        """Log the rates, and report the images that were skipped."""
        groups = self.trainer.optimizers[0].param_groups
        self.log_dict({"lr_encoder": groups[0]["lr"], "lr_decoder": groups[1]["lr"]})
        if self.skipped:
            shown = "\n  ".join(sorted(set(self.skipped))[:10])
            print(f"epoch {self.current_epoch}: skipped {len(self.skipped)} unreadable image(s):\n  {shown}")
            self.skipped.clear()

    def loss(self, logits: Tensor, target: Tensor, unions: Unions | None = None) -> Tensor:
        """Mean cross-entropy over the labelled pixels, in float32; 0 where no pixel of the batch has a label.

        Simplest replacement: ``F.cross_entropy(upsample_x2(logits), target, ignore_index=-1)``.

        logits: (B, N, H, W), or (B, N, H/2, W/2) as ``net.half_logits`` returns them: less memory.
        target: (B, H, W) int64; negative values and ``config.ignore_index`` are left out.
        unions: where several of the logits stand for one of the target's labels.
        """
        ignored = self.config.ignore_index
        target = target.masked_fill(target < 0, ignored)
        if logits.shape[-2:] != target.shape[-2:]:
            total = upsampled_cross_entropy(logits, target, ignored, unions)
        elif unions is None:
            total = F.cross_entropy(logits.float(), target, ignore_index=ignored, reduction="sum")
        else:
            pixels = logits.float().movedim(1, -1).flatten(0, -2)  # (B * H * W, N)
            total = unions.cross_entropy(pixels, target.flatten(), ignored)
        return total / (target != ignored).sum().clamp_min(1)

    def _where(self, what: str, loader: Any, batch: dict[str, Any]) -> str:
        """Where a number became infinite or NaN, and what to do."""
        files = ", ".join(loader.dataset.dataset.name_of(int(i)) for i in batch["index"])
        folder = getattr(self.trainer.checkpoint_callback, "dirpath", None)
        last = Path(folder or "") / "last.ckpt"
        there = last if folder and last.exists() else "none yet"
        return (
            f"{what} at step {self.global_step} of epoch {self.current_epoch} (process {self.global_rank}); the batch: "
            f"{files}. The last checkpoint is intact ({there}). Lower --base_lr, or train with --precision 32 to see "
            "whether half precision is the cause"
        )

    # ---------------------------------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        self.metric.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count a batch; return the predicted labels, int64 (B, H, W)."""
        logits = self.net.half_logits(batch["image"])
        predicted = self.predicted(logits, batch)
        self.metric.update(batch["mask"], predicted)
        self.log("val_loss", self.loss(logits, batch["mask"]), sync_dist=True, batch_size=len(batch["image"]))
        return predicted

    def predicted(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """(B, N, h, w) -> labels, int64 (B, 2h, 2w); ``NonFiniteLossError`` if a score is infinite or NaN."""
        if not torch.isfinite(logits).all():  # every pixel would get label 0, and the mIoU would choose a checkpoint
            loader = self.trainer.val_dataloaders
            raise NonFiniteLossError(self._where("scores in validation are infinite or NaN", loader, batch))
        return upsampled_max(logits)[1]

    def labels_of(self, batch: dict[str, Any]) -> list[list[str]]:
        """The label list of each image of a validation batch."""
        return [self.net.own_labels] * len(batch["image"])

    def on_validation_epoch_end(self) -> None:
        pixel_accuracy, miou = self.metric.all_reduce().get()
        # Every process has the same sums, so nothing is left to synchronise.
        self.log_dict({"val_acc_epoch": pixel_accuracy, "val_miou_epoch": miou}, prog_bar=True)

    # ---------------------------------------------------------------------- optimiser and checkpoint hooks

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.net, self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write official names, and the metadata that describe the file."""
        checkpoint["state_dict"] = to_official(self.net.state_dict())
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint[METADATA_KEY] = metadata_of(
            self.net,
            dataset=self.dataset,
            data_path=self.data_path and str(self.data_path.resolve()),
            dataset_file=self.dataset_file and str(self.dataset_file.resolve()),
            optimization=asdict(self.config),
            run=self.run_facts,
            epoch=self.current_epoch,
            step=self.global_step,
            metric=metrics,
            **self.extra_metadata(),
        )

    def extra_metadata(self) -> dict[str, Any]:
        """Further metadata of a subclass's checkpoints."""
        return {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Translate the names of the weights; ``InputError`` for resuming a run of the official code by ``fit``."""
        if METADATA_KEY not in checkpoint and self.trainer.state.fn == "fit":
            raise InputError(
                "Trainer.fit cannot resume this checkpoint: it is not from this project. Leave ckpt_path out "
                "(LSegModule.load_from_checkpoint has loaded the weights), or resume an official run with train_lseg.py"
            )
        weights = from_official(checkpoint["state_dict"])
        named = {f"net.{name}": tensor for name, tensor in weights.items()}
        checkpoint["state_dict"] = to_official(weights) if isinstance(self.net, OfficialNet) else named
