"""export_lseg.py: what it writes gives PyTorch's numbers at any size, and what does not is refused and not kept."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.export import Dim

import export_lseg
from checkpoint_files import official_file
from encoding_ext import image_to_tensor
from lseg_utils.errors import InputError
from modules import exporting
from modules.checkpoints import load_lseg
from modules.models import LSegNet
from scripts import REPOSITORY, run
from tiny import pictures, tiny_net

pytestmark = pytest.mark.xdist_group("export")  # the exported files are made once

LABELS = "cat, grass, a red car"


def export(weights: Path, folder: Path, *options: str) -> None:
    export_lseg.main(["--weights", str(weights), "--output-dir", str(folder), *options])


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[LSegNet, Path]:
    """A ViT, where sizes are hard, and the folder that it was exported to in both formats."""
    return exported_to(tmp_path_factory.mktemp("exported"), "tiny_vit", "onnx", "pt2")


def exported_to(folder: Path, backbone: str, *formats: str) -> tuple[LSegNet, Path]:
    """A tiny network and the folder that the script exported it to."""
    weights = official_file(tiny_net(backbone), folder / "tiny.ckpt")
    # pytest would collect what torch notes of every step: megabytes.
    logging.getLogger("torch.__trace").propagate = False
    export(weights, folder / "out", "--labels", LABELS, "--formats", *formats)
    return load_lseg(weights), folder / "out"


def runners(folder: Path) -> dict[str, Callable[[torch.Tensor], np.ndarray]]:
    """What was written, as functions from images to embeddings."""
    session = onnxruntime.InferenceSession(folder / "lseg.onnx")
    found = {"onnx": lambda images: session.run(None, {"images": images.numpy()})[0]}
    if (folder / "lseg.pt2").exists():
        program = torch.export.load(folder / "lseg.pt2").module()
        found["pt2"] = lambda images: program(images).numpy()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny_vit", "tiny_resnet"])
def test_the_files_give_the_pixel_embedding_at_any_size(backbone, exported, tmp_path):
    net, folder = exported if backbone == "tiny_vit" else exported_to(tmp_path, backbone, "onnx")
    written = runners(folder)
    for size in [(1, 64, 64), (2, 192, 192), (3, 96, 160)]:
        images = pictures(*size)
        with torch.inference_mode():
            expected = net.embed(images).numpy()
            for name, run in written.items():
                np.testing.assert_allclose(run(images), expected, atol=1e-3, rtol=0, err_msg=f"{name} {size}")


@pytest.mark.slow
def test_the_files_say_what_they_are(exported):
    net, folder = exported
    about = json.loads((folder / "lseg.json").read_text())
    assert about["mean"] == list(net.mean) and about["architecture"] == net.architecture
    said = onnxruntime.InferenceSession(folder / "lseg.onnx").get_modelmeta().custom_metadata_map
    assert int(said["opset"]) == about["files"]["lseg.onnx"]["opset"] >= 18
    assert json.loads(said["std"]) == list(net.std) and "multiples of 32" in said["input"]
    assert max(file["largest_difference"] for file in about["files"].values()) <= 1e-3
    extra = {exporting.METADATA_FILE: ""}
    torch.export.load(folder / "lseg.pt2", extra_files=extra)
    assert json.loads(extra[exporting.METADATA_FILE])["architecture"] == net.architecture
    text = np.load(folder / "lseg.npz")
    assert text["labels"].tolist() == LABELS.split(", ")
    np.testing.assert_allclose(text["text"], net.encode_labels(LABELS.split(", ")).numpy(), atol=1e-6)


@pytest.mark.slow
def test_the_example_gives_the_labels_of_the_network(exported):
    net, folder = exported
    spec = importlib.util.spec_from_file_location("onnx_segment", REPOSITORY / "examples" / "onnx_segment.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8))
    with torch.inference_mode():
        logits = net(image_to_tensor(net.mean, net.std)(image)[None], LABELS.split(", "))[0]
    mask, labels = example.segment(str(folder), image, long_side=160)
    best, second = logits.topk(2, dim=0).values
    clear = (best - second > 1e-3).numpy()
    assert clear.mean() > 0.9 and labels == LABELS.split(", ")
    np.testing.assert_array_equal(mask[clear], logits.argmax(0).numpy()[clear])
    assert example.segment(str(folder), Image.new("L", (41, 7)), long_side=64)[0].shape == (7, 41)
    # Without long_side it looks as the network was trained, which for a tiny one is 64 pixels.
    np.testing.assert_array_equal(example.segment(str(folder), image)[0], example.segment(str(folder), image, 64)[0])


@pytest.mark.slow
def test_the_example_writes_the_numbers_of_many_labels(exported, tmp_path):
    _, folder = exported
    many = dict(np.load(folder / "lseg.npz"))
    many["text"] = np.zeros((300, many["text"].shape[1]), np.float32)  # the first 256 score 0, of the others some more
    many["text"][256:] = np.random.default_rng(0).normal(size=many["text"][256:].shape)
    many["labels"] = np.array([f"label {number}" for number in range(300)])
    np.savez(tmp_path / "lseg.npz", **many)
    (tmp_path / "lseg.onnx").symlink_to(folder / "lseg.onnx")
    Image.effect_noise((96, 64), 80).convert("RGB").save(tmp_path / "picture.png")
    run("examples/onnx_segment.py", tmp_path, "picture.png", "mask.png", cwd=tmp_path)
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.asarray(mask).shape == (64, 96) and 256 <= np.asarray(mask).min() <= np.asarray(mask).max() < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "usage: "), (("nowhere", "a.png", "b.png"), "nowhere"), ((".", "none.png", "b.png"), "none.png")],
)
def test_the_example_says_what_it_misses(arguments, message, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    output = run("examples/onnx_segment.py", *arguments, cwd=tmp_path, code=1)
    assert message in output and "Traceback" not in output


def test_the_example_needs_neither_torch_nor_this_project():
    lines = (REPOSITORY / "examples" / "onnx_segment.py").read_text().splitlines()
    imported = {line.split()[1] for line in lines if line.startswith(("import", "from"))}
    assert imported == {"sys", "numpy", "onnxruntime", "PIL"}
    assert len([line for line in lines if line.strip() and "# " not in line[:2]]) <= 45


@pytest.mark.slow
def test_the_matrix_alone_is_renewed_for_other_labels(exported, tmp_path):
    _, folder = exported
    (tmp_path / "labels.txt").write_text("sky\nsea\n")
    before = (folder / "lseg.onnx").stat().st_mtime_ns, (folder / "lseg.json").read_text()
    text = (folder / "lseg.npz").read_bytes()
    try:
        weights, labels = folder.parent / "tiny.ckpt", str(tmp_path / "labels.txt")
        export(weights, folder, "--labels", labels, "--formats", "--overwrite")
        assert np.load(folder / "lseg.npz")["labels"].tolist() == ["sky", "sea"]
    finally:
        (folder / "lseg.npz").write_bytes(text)
    assert before == ((folder / "lseg.onnx").stat().st_mtime_ns, (folder / "lseg.json").read_text())


WRITERS = [("onnx", exporting.write_onnx), ("pt2", exporting.write_program)]


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_a_file_that_differs_is_not_kept(suffix, write, tmp_path):
    tower, other = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)
    sizes = {"input": {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}}
    program = torch.export.export(tower, (pictures(2, 64, 96),), dynamic_shapes=sizes)
    path = tmp_path / f"lseg.{suffix}"
    path.write_text("of before")
    about = {"mean": [0.5] * 3, "std": [0.5] * 3, "passport": {"image": [], "text": []}}
    with pytest.raises(InputError, match=r"was not kept: .*differs from PyTorch"):
        write(program, path, other, about)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of before"]
    assert write(program, path, tower, about)["largest_difference"] < 1e-5
    with pytest.raises(InputError, match="built-in picture"):
        write(program, path, tower, {**about, "passport": {"image": [1.0] * 60, "text": []}})


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_a_file_that_takes_one_size_only_is_not_kept(suffix, write, tmp_path):
    tower = torch.nn.Conv2d(3, 4, 2, stride=2)
    program = torch.export.export(tower, (pictures(1, 64, 64),))
    with pytest.raises(InputError, match=r"was not kept: .*refuses a batch of"):
        write(program, tmp_path / f"lseg.{suffix}", tower, {})
    assert not list(tmp_path.iterdir())


def test_a_program_that_pytorch_cannot_read_back_is_not_kept(tmp_path, monkeypatch):
    tower = torch.nn.Conv2d(3, 4, 1)
    program = torch.export.export(tower, (pictures(1, 64, 64),))

    def unreadable(path):
        """What PyTorch 2.14 does with a Swin."""
        raise RuntimeError("error when deserializing")

    monkeypatch.setattr(torch.export, "load", unreadable)
    with pytest.raises(InputError, match=r"a\.pt2 was not kept: .*cannot be read back"):
        exporting.write_program(program, tmp_path / "a.pt2", tower, {})
    assert not list(tmp_path.iterdir())


def test_bad_input_is_named_before_anything_is_written(tmp_path, monkeypatch):
    weights = official_file(tiny_net(), tmp_path / "tiny.ckpt")
    block = official_file(tiny_net(arch_option=1), tmp_path / "block.ckpt")
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lseg.onnx").write_text("precious")
    cases = [
        ([weights, tmp_path / "file" / "out", "--labels", "cat"], "not writable.*another --output_dir"),
        ([weights, tmp_path / "out", "--labels", ", "], r"contains lseg\.onnx; add --overwrite(.|\n)*no label"),
        ([weights, tmp_path / "new", "--labels", "none.txt"], "cannot read the label file none.txt"),
        ([weights, tmp_path / "new", "--labels", "cat " * 200], "longer than CLIP's"),
        ([weights, tmp_path / "new"], "has no labels of its own; add --labels"),
        ([tmp_path / "no.ckpt", tmp_path / "new", "--labels", "cat"], "there is no file"),
        ([block, tmp_path / "new", "--labels", "cat"], "spatial regularisation block"),
    ]
    for arguments, expected in cases:
        with pytest.raises(InputError, match=expected):
            export(*map(str, arguments))
    monkeypatch.setattr(export_lseg, "ONNX_PACKAGES", ("onnx", "onnx_that_is_not_there"))
    with pytest.raises(InputError, match="pip install onnx_that_is_not_there"):
        export(weights, tmp_path / "new", "--labels", "cat")
    assert (tmp_path / "out" / "lseg.onnx").read_text() == "precious"


def test_an_export_that_was_killed_while_it_wrote_leaves_nothing(tmp_path):
    folder = tmp_path / "out"
    (folder / export_lseg.WRITING).mkdir(parents=True)
    (folder / export_lseg.WRITING / "lseg.npz").write_text("half")
    (folder / ".lseg.aside.onnx").write_text("of an earlier version")
    weights = official_file(tiny_net(), tmp_path / "tiny.ckpt")
    export(weights, folder, "--labels", "cat, dog", "--formats")  # does not ask for --overwrite
    assert np.load(folder / "lseg.npz")["labels"].tolist() == ["cat", "dog"]
    assert [path.name for path in folder.iterdir()] == ["lseg.npz"]


def test_an_export_that_was_killed_when_it_was_complete_is_finished(tmp_path, monkeypatch):
    names = [f"lseg.{suffix}" for suffix in ("json", "npz", "onnx")]
    for name in names:
        (tmp_path / name).write_text("old")
    replaced = []

    def replace_two(source: Path, target: Path) -> None:
        if len(replaced) == 2:
            raise KeyboardInterrupt
        replaced.append(target.name)
        source.rename(target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export_lseg.os, "replace", replace_two)
        with export_lseg.all_or_nothing(tmp_path) as writing:
            for name in names:
                (writing / name).write_text("new")
    assert sorted((tmp_path / name).read_text() for name in names) == ["new", "new", "old"]
    weights = official_file(tiny_net(), tmp_path / "tiny.ckpt")
    with pytest.raises(InputError, match="add --overwrite"):
        export(weights, tmp_path, "--labels", "cat")
    assert [(tmp_path / name).read_text() for name in names] == ["new"] * 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_export_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "lseg.npz").write_text("old")
    weights = official_file(tiny_net(), tmp_path / "tiny.ckpt")

    def fail(*arguments):
        raise InputError("differs")

    monkeypatch.setattr(exporting, "write_program", fail)
    with pytest.raises(InputError, match="differs"):
        export(weights, tmp_path, "--labels", "cat", "--formats", "pt2", "--overwrite")
    assert (tmp_path / "lseg.npz").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lseg.npz", "tiny.ckpt"]


def test_help_and_a_missing_file_need_no_torch(tmp_path):
    code = "import sys, export_lseg\ntry: export_lseg.main(sys.argv[1:])\nexcept BaseException as e: print(e)"
    for arguments in (["--help"], ["--weights", "none.ckpt", "--output_dir", str(tmp_path)]):
        line = [sys.executable, "-c", f"{code}\nprint('torch' in sys.modules)", *arguments]
        done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert done.stdout.endswith("False\n"), done.stdout
    assert "there is no file none.ckpt" in done.stdout
