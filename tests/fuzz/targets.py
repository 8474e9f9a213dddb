"""What is fuzzed: for each kind of input some valid files, and the functions that read them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lseg_utils.errors import InputError


@dataclass(frozen=True)
class Target:
    """One kind of input.

    seeds: a folder -> valid files, made in it. read: reads one file; an ``InputError`` is as good as a result.
    """

    seeds: Callable[[Path], Iterable[Path]]
    read: Callable[[Path], Any]


# ------------------------------------------------------------------------------------------------ checkpoints


def thin(weights: dict[str, Any]) -> dict[str, Any]:
    """The same names and shapes in a small file: every tensor repeats a single number."""
    return {name: tensor.flatten()[0].clone().expand(tensor.shape) for name, tensor in weights.items()}


def checkpoint_seeds(folder: Path) -> Iterable[Path]:
    """Own, official, plain; as archive and in the legacy format; whole networks and a few tensors."""
    import torch

    from checkpoint_files import official_content, official_weights
    from modules.checkpoint_metadata import METADATA_KEY, metadata_of
    from modules.checkpoints import to_official
    from tiny import tiny_net

    net = tiny_net("tiny_vit")
    own = metadata_of(net, epoch=3, step=7, metric={"val_miou_epoch": 0.5}, dataset="ade20k", zero_shot={"fold": 1})
    few = {"net.scratch.head1.weight": torch.ones(64, 16, 1, 1), "net.scratch.head1.bias": torch.arange(64).half()}
    contents = {
        "own": {"state_dict": thin(to_official(net.state_dict())), METADATA_KEY: own},
        "official": official_content(net, thin(official_weights(net))),
        "plain": thin({name.removeprefix("net."): value for name, value in official_weights(net).items()}),
        "few": {"state_dict": few, METADATA_KEY: own, "epoch": 1},
    }
    for name, content in contents.items():
        for new_format in (True, False):
            path = folder / f"{name}{'' if new_format else '_legacy'}.ckpt"
            torch.save(content, path, _use_new_zipfile_serialization=new_format)
            yield path


def read_checkpoint_file(path: Path) -> None:
    """As every script does, and as ``python -m modules.zoo check`` does."""
    from modules.checkpoints import load_lseg
    from modules.zoo import describe, identify

    net = load_lseg(path)
    assert net.labels is None or all(isinstance(label, str) for label in net.labels)
    assert all(parameter.isfinite().all() for parameter in net.parameters()), "weights that are not finite"
    describe(identify(path))


def weights_seeds(folder: Path) -> Iterable[Path]:
    """First weights of a training: a TorchScript archive, safetensors, a state dict."""
    import torch
    from safetensors.torch import save_file

    weights = {"a.weight": torch.ones(3, 4), "a.bias": torch.arange(4).half(), "n": torch.tensor(3)}
    save_file(weights, folder / "few.safetensors")
    torch.save({"state_dict": weights}, folder / "few.pth")
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(folder / "script.pt"))
    return [folder / "few.safetensors", folder / "few.pth", folder / "script.pt"]


def read_first_weights(path: Path) -> None:
    """What ``--clip_weights`` and ``--backbone_weights`` do with a file."""
    from modules.models.build import build_lseg
    from modules.models.pretrained import load_pretrained
    from modules.training.start import NetworkChoice, build_network, read_weights

    read_weights(path)
    build_network(NetworkChoice("tiny_vit", 16, clip_weights=str(path), backbone_weights="random"), ["a"])
    load_pretrained(build_lseg("tiny_vit", ["a"], features=16), "random", path, read_weights)


# ---------------------------------------------------------------------------------------------------- pictures


def picture_seeds(folder: Path) -> Iterable[Path]:
    """Every format that people have, in the modes that it allows."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (24, 40, 4), dtype=np.uint8)
    colour, grey = Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0])
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(random.integers(0, 65536, (24, 40), dtype=np.uint16))
    see_through, indexed = Image.fromarray(noise), colour.quantize(7)
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = [
        *(
            (f"rgb.{suffix}", colour, {})
            for suffix in ("png", "jpg", "bmp", "ppm", "tiff", "webp", "gif", "ico", "tga", "pcx")
        ),
        *((f"grey.{suffix}", grey, {}) for suffix in ("png", "jpg", "tiff", "pgm")),
        *(
            ("exif.jpg", colour, {"exif": exif}),
            ("exif.png", colour, {"exif": exif}),
            ("cmyk.jpg", colour.convert("CMYK"), {}),
        ),
        *(("progressive.jpg", colour, {"progressive": True}), ("deep.png", deep, {}), ("deep.tiff", deep, {})),
        *(
            ("rgba.png", see_through, {}),
            ("rgba.webp", see_through, {"lossless": True}),
            ("rgba.tiff", see_through, {}),
        ),
        *(
            ("indexed.png", indexed, {}),
            ("indexed.gif", indexed, {"transparency": 2}),
            ("one.png", grey.convert("1"), {}),
        ),
        *(
            ("packed.tiff", colour, {"compression": "tiff_lzw"}),
            ("deflate.tiff", grey, {"compression": "tiff_deflate"}),
        ),
        ("moving.gif", indexed, {"save_all": True, "append_images": [indexed.rotate(90)]}),
        ("moving.webp", colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        ("jpeg2000.jp2", colour, {}),
    ]
    for name, picture, options in pictures:
        try:
            picture.save(folder / name, **options)
        except (OSError, KeyError, ValueError):  # a format that this Pillow was built without
            continue
        yield folder / name


def read_picture(path: Path) -> None:
    """As prediction, the app and the datasets do."""
    from data.reading import EncodedImage, read_image
    from lseg_utils.image_input import decode_rgb, read_rgb, to_pixels

    results = []
    readers: tuple[Callable[[], Any], ...] = (
        lambda: to_pixels(read_rgb(path)),
        lambda: to_pixels(decode_rgb(path.read_bytes(), path.name)),
        lambda: np.asarray(read_image(path)),
        lambda: EncodedImage(path).pixels((8, 8)),
    )
    for reader in readers:
        with contextlib.suppress(InputError):
            pixels = reader()
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
            results.append(pixels)


def mask_seeds(folder: Path) -> Iterable[Path]:
    """Masks of 8 and 16 bits, with a palette, of one bit."""
    values = np.random.default_rng(0).integers(0, 11, (24, 40), dtype=np.uint8)
    indexed = Image.fromarray(values)
    indexed.putpalette(list(range(256)) * 3)
    masks = {"grey": Image.fromarray(values), "deep": Image.fromarray(values.astype(np.uint16)), "indexed": indexed}
    masks |= {"one": Image.fromarray(values > 5)}
    for name, picture in masks.items():
        picture.save(folder / f"{name}.png")
        yield folder / f"{name}.png"
    Image.fromarray(values.astype(np.int32)).save(folder / "wide.tiff")
    yield folder / "wide.tiff"


def read_mask_file(path: Path) -> None:
    """As the datasets with fixed labels, with 0 and with 255 for unlabelled, and the benchmarks do."""
    from data.coco import Coco
    from data.description import Masks, read_description
    from data.masks import MaskReader
    from data.pascal import Pascal

    own = Masks("values", {**{value: value for value in range(10)}, 255: -1})
    for masks, count in ((read_description("ade20k").masks, 150), (own, 10)):
        with contextlib.suppress(InputError):
            target = MaskReader(masks, tuple(range(count)), "own").target(path)
            assert target.ndim == 2 and 0 <= target.min() <= target.max() <= count
    for benchmark in (Pascal, Coco):
        with contextlib.suppress(InputError):
            target = benchmark.read_target(path, 3)
            assert set(np.unique(target)) <= {-2, -1, 0, 1}


# ------------------------------------------------------------------------------------------------------ texts


def label_seeds(folder: Path) -> Iterable[Path]:
    """Lists as people write them, and the official table."""
    table = 'Idx,Ratio,Train,Val,Name\n1,0.1,10,2,wall;bricks\n2,0.2,3,4,"door, wide;gate"\n'
    texts = {
        "plain": "cat\ndog\n# no label\n\nother\n",
        "comma": "cat, grass , other",
        "windows": "\ufeffcat\r\nwet dog\r\n",
    }
    for name, text in {**texts, "table": table, "accents": "Fluß\nćma\n猫\n"}.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
        yield folder / f"{name}.txt"


def read_labels(path: Path) -> None:
    """As ``--labels`` and ``--label_src`` do, up to the tokens."""
    from data.labels import labels_from, read_label_file, resolve_labels
    from modules.models.text_encoder import check_labels

    with contextlib.suppress(InputError):
        labels = labels_from(path)
        assert labels == check_labels(labels) == [label.strip() for label in labels]
    with contextlib.suppress(InputError):
        labels_from(path.read_text(errors="replace"))  # the text itself, as if it had been typed
    with contextlib.suppress(InputError):
        labels, doubts = read_label_file(path)
        assert len(set(labels)) == len(labels) or doubts
        assert not any("\ufeff" in label or "\x00" in label for label in labels), labels
    with contextlib.suppress(InputError):
        assert len(resolve_labels("mine", str(path), {}, 3)) == 3


def description_seeds(folder: Path) -> Iterable[Path]:
    """run.json and ledger.jsonl of a prediction, results.json of both tests, the basis of ``--pca``."""
    from apps.predict.projection import PixelPCA
    from miniature.names import LABELS

    settings = {"checkpoint": {"file": "a.ckpt", "sha256": "0"}, "labels": ["a"], "embeddings": None}
    source = {"name": "a", "source": "a.jpg", "file": [1, 2], "parts": ["json"], "areas": {"0": 3}}
    names = {label: 1.5 for label in LABELS}
    miniature = {"miou": 1.0, "groups": {"seen": 1.0, "unseen": 2.0}, "per_class_iou": names}
    matrix = np.eye(len(LABELS), dtype=int).tolist()
    zero_shot = {"miou": 40.5, "fb_iou": 60.0, "trained": {"select": "held_out"}, "setting": "zero-shot"}
    for name, content in {
        "run.json": {"settings": settings, "own_labels": True, "base_size": 520},
        "miniature.json": {**miniature, "confusion": matrix},
        "fold.json": zero_shot,
    }.items():
        (folder / name).write_text(json.dumps(content))
        yield folder / name
    lines = [{"settings": "run.json"}, source, {**source, "name": "b"}]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield folder / "ledger.jsonl"
    parts = (np.zeros(4), np.eye(3, 4), np.ones(3), np.zeros(3), np.ones(3))
    PixelPCA(*(part.astype(np.float32) for part in parts)).save(folder / "pca.npz", ["a"], np.ones((1, 4), np.float32))
    yield folder / "pca.npz"


def read_description(path: Path) -> None:
    """Whatever the file is called, as everything that reads a description of its kind does."""
    from apps.predict.journal import Journal
    from apps.predict.projection import PixelPCA
    from apps.predict.sources import Source
    from lseg_utils.ledger import Ledger
    from miniature.results import read_result
    from recipes import report_zs

    content, folder = path.read_bytes(), path.parent
    with contextlib.suppress(InputError):
        Ledger(path, {"settings": "run.json"}).append({"name": "c"})
    for name in ("run.json", "ledger.jsonl"):
        with contextlib.suppress(InputError):
            (folder / "run.json").write_text(json.dumps({"settings": {"embeddings": None}}))
            (folder / "ledger.jsonl").unlink(missing_ok=True)
            (folder / name).write_bytes(content)
            journal = Journal(folder, {"embeddings": None}, {})
            journal.finished(Source(path, "a", "picture"), frozenset({"json"}))
            journal.records()
    with contextlib.suppress(InputError):
        read_result(path)
    (folder / "fold0").mkdir(exist_ok=True)
    (folder / "fold0" / "results.json").write_bytes(content)
    with contextlib.suppress(InputError), contextlib.redirect_stdout(io.StringIO()):
        report_zs.main(["--dataset", "pascal", "--backbone", "clip_resnet101", "--folder", str(folder)])
    with contextlib.suppress(InputError):
        import torch

        pca = PixelPCA.load(path)
        pca.colours(pca.project(torch.zeros(2, 2, 4)))


def dataset_seeds(folder: Path) -> Iterable[Path]:
    """Descriptions of datasets: folders, lists of labels, mask values, colours, other codings."""
    from data.description import DESCRIPTIONS

    own = folder / "own.yaml"
    own.write_text(
        "name: own\nroot: .\nsplits:\n  train: {images: 'images/*.jpg', masks: masks}\n  val: {images: v, masks: w}\n"
        "names: {mask_suffix: _m}\nlabels: {road: [1, 2], 'car, van': 3}\nmask: {ignore: [255]}\n"
        "sizes: {base: 240, crop: 224, scales: [0.5, 2.0]}\nprotocols: {published: {base: 64, crop: 64, flip: true}}\n"
    )
    yield own
    for description in sorted(DESCRIPTIONS.glob("*.yaml")):
        (folder / description.name).write_bytes(description.read_bytes())
        yield folder / description.name


def read_dataset(path: Path) -> None:
    """The description, and what is missing on disk for it."""
    from data.described import problems
    from data.description import read_description

    description = read_description(str(path))
    problems(description, path.parent, list(description.splits))


# ------------------------------------------------------------------------------------------------------ videos


def video_seeds(folder: Path) -> Iterable[Path]:
    """A few frames as MP4 and GIF."""
    from predict_script import video

    for suffix in ("mp4", "gif"):
        yield video(folder / f"clip.{suffix}", frames=5)


def read_video(path: Path) -> None:
    """All frames of a file."""
    from apps.predict.video_reader import VideoFile

    for number, _ in enumerate(VideoFile(path)):
        if number == 50:  # a header may promise millions of repeated frames
            break


TARGETS = {
    "checkpoint": Target(checkpoint_seeds, read_checkpoint_file),
    "weights": Target(weights_seeds, read_first_weights),
    "image": Target(picture_seeds, read_picture),
    "mask": Target(mask_seeds, read_mask_file),
    "labels": Target(label_seeds, read_labels),
    "description": Target(description_seeds, read_description),
    "dataset": Target(dataset_seeds, read_dataset),
    "video": Target(video_seeds, read_video),
}
