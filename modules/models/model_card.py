"""The model card of a network (README.md in the folder of its weights): what is known about it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

FIGURES = {
    "miou": ("mIoU", "mean_iou"),
    "fb_iou": ("FB-IoU", "fb_iou"),
    "pixel_accuracy": ("pixel accuracy", "accuracy"),
}
CITATION = """@inproceedings{li2022languagedriven,
  title     = {Language-driven Semantic Segmentation},
  author    = {Boyi Li and Kilian Q Weinberger and Serge Belongie and Vladlen Koltun and Rene Ranftl},
  booktitle = {International Conference on Learning Representations},
  year      = {2022}
}"""


def model_card(
    name: str, config: Mapping[str, Any], results: Sequence[Mapping[str, Any]] = (), notes: Sequence[str] = ()
) -> ModelCard:
    """The card of the network that ``config`` (``config.json``) describes.

    Args:
        name: of the model.
        results: contents of ``results.json`` files that the test scripts wrote for this network; figures in percent.
        notes: further sentences, such as a published figure.

    Raises:
        ValueError: results without a dataset or figures, or those of a control experiment.
    """
    tables = [_tested(result) for result in results]
    evaluations = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=result["dataset"],
            dataset_name=result["dataset"],
            metric_type=kind,
            metric_name=title,
            metric_value=round(result[key], 2),
        )
        for result in results
        for key, (title, kind) in FIGURES.items()
        if key in result
    ]
    data = ModelCardData(
        library_name="lseg",
        pipeline_tag="image-segmentation",
        tags=["lseg", "open-vocabulary", "zero-shot-segmentation"],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {name}\n",
        "LSeg (Language-driven Semantic Segmentation, ICLR 2022) labels every pixel of a picture with any words.\n",
        *(f"{note}\n" for note in notes),
        "## Use\n",
        "```python",
        "from lseg import LSegNet, LSegPredictor\n",
        f'net = LSegNet.from_pretrained("{name}")  # a folder, or a name on the hub with its user: USER/{name}',
        "predictor = LSegPredictor(net.network)",
        'mask = predictor.segment("cat.jpg", ["cat", "grass", "other"]).mask',
        "```\n",
        "## Network\n",
        *_table(("what", "value"), _facts(config)),
        "## Training\n",
        *(_table(("what", "value"), _training(config)) or ["Nothing is recorded about it.\n"]),
        "## Measured results\n",
        *(tables or ["None are recorded.\n"]),
        "## Citation\n",
        f"```bibtex\n{CITATION}\n```",
    ]
    return ModelCard("\n".join(parts) + "\n")


def _facts(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    labels, normalization = config["labels"], config["normalization"]
    return [
        *config["architecture"].items(),
        ("labels", f"{len(labels)}: {', '.join(labels)}" if labels else "none of its own"),
        *((key, ", ".join(map(str, values))) for key, values in normalization.items()),
        ("long side at scale 1, pixels", config["sizes"]["base"]),
        ("side of crops and windows, pixels", config["sizes"]["crop"]),
        ("SHA-256 of the weights", config["fingerprint"]),
    ]


def _training(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the checkpoint recorded; its figures are those of the validation during training."""
    facts = [(key, config[key]) for key in ("dataset", "epoch", "step") if config.get(key) is not None]
    facts += [(f"zero-shot: {key}", value) for key, value in config.get("zero_shot", {}).items()]
    facts += [(f"optimisation: {key}", value) for key, value in config.get("optimization", {}).items()]
    return facts + [(f"{key}, at the end", f"{value:.4g}") for key, value in config.get("metric", {}).items()]


def _tested(result: Mapping[str, Any]) -> str:
    """A table of one test."""
    figures = [(title, f"{result[key]:.2f} %") for key, (title, _) in FIGURES.items() if key in result]
    if not isinstance(result.get("dataset"), str) or not figures:
        raise ValueError("the results do not give a dataset or a figure; use the results.json of a test script")
    if result.get("shuffled_labels") is not None:
        raise ValueError(f"the results on {result['dataset']} are of a control experiment with exchanged labels")
    keys = ("dataset", "split", "setting", "fold", "images", "protocol", "precision", "label_source")
    return "\n".join(_table(("what", "value"), [*((key, result[key]) for key in keys if key in result), *figures]))


def _table(header: Sequence[str], rows: Sequence[tuple[str, Any]]) -> list[str]:
    """A Markdown table and an empty line; [] without rows."""
    lines = [header, ["---"] * len(header), *rows] if rows else []
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells] + [""] * bool(rows)
