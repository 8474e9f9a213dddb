"""The model zoo: its table, what is said of a downloaded file, and what the other scripts take from it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoint_files import attack, official_file, official_weights
from lseg_utils.errors import InputError
from lseg_utils.files import sha256_of
from modules import zoo
from modules.checkpoints import export_plain, load_lseg, metadata_of, save_file, to_official
from modules.models import BACKBONES
from modules.models.lseg_net import LSegNet
from modules.released import RELEASED, file_name_doubts, published, released_file
from modules.weights_file import check_weights_file
from modules.zoo import identify
from reference import official_shapes
from scripts import REPOSITORY
from tiny import tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")


def official_skeleton(network: str, path: Path) -> Path:
    """A file with the names and shapes of an official network whose numbers take no room: each a view of one zero."""
    weights = {
        name: torch.zeros((), dtype=getattr(torch, dtype.removeprefix("torch."))).expand(shape)
        for name, (shape, dtype) in official_shapes(network).items()
    }
    torch.save({"state_dict": weights}, path)
    return path


def checked(path: Path, capsys: pytest.CaptureFixture, code: int = 0) -> dict:
    assert zoo.main(["check", str(path), "--json"]) == code
    (report,) = json.loads(capsys.readouterr().out)
    return report


def test_the_data_are_whole():
    assert len(RELEASED) == 11 and len({entry.file for entry in RELEASED}) == 11
    assert all(entry.backbone in BACKBONES for entry in RELEASED)
    assert {entry.file for entry in RELEASED if entry.miou is None} == {"demo_e200.ckpt"}
    pascal = published("pascal", "clip_resnet101")
    assert pascal.miou_by_fold == [52.8, 53.8, 44.4, 38.5] and (pascal.miou, pascal.fb_iou) == (47.4, 64.1)
    assert published("coco", "clip_vitl16_384").miou_by_fold == [None] * 4
    assert published("fss", "clip_vitl16_384").miou_by_fold == [87.8]
    assert published("pascal", "clip_vitb32_384") is None


def test_readme_prints_the_same_figures():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for title, dataset in (("Pascal-5i", "pascal"), ("COCO-20i", "coco"), ("FSS-1000", "fss")):
        for backbone in ("clip_resnet101", "clip_vitl16_384"):
            figures = published(dataset, backbone)
            folds = [value for value in figures.miou_by_fold if value is not None] if dataset != "fss" else []
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {title}, `{backbone}`")]
            printed = [float(cell) for cell in line.split("|") if cell.strip().replace(".", "").isdigit()]
            assert printed == [*folds, figures.miou, *([figures.fb_iou] if figures.fb_iou else [])]


def test_list(capsys):
    assert zoo.main([]) == 0
    out = capsys.readouterr().out
    assert all(entry.file in out for entry in RELEASED) and "52.8" in out and "never released" in out
    assert zoo.main(["list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["checkpoints"]) == 11


@pytest.mark.parametrize(
    ("network", "name", "can_be", "command"),
    [
        ("vitl16_arch0", "demo_e200.ckpt", ["demo_e200", "fss_l16"], "test_lseg.py --eval --dataset ade20k"),
        ("zs_vitl16", "fss_l16 (1).ckpt", ["demo_e200", "fss_l16"], "test_lseg_zs.py --dataset fss --nshot 0"),
        ("zs_resnet101_pascal", "coco_fold2.ckpt", 9, "test_lseg_zs.py --dataset coco --fold 2 --nshot 0"),
    ],
)
def test_an_official_file_is_recognised(network, name, can_be, command, tmp_path, capsys):
    report = checked(official_skeleton(network, tmp_path / name), capsys)
    assert report["misfits"] == {} and report["sha256"] == sha256_of(tmp_path / name)
    assert report["can_be"] == can_be if isinstance(can_be, list) else len(report["can_be"]) == can_be
    (line,) = report["commands"]
    assert command in line and name in line
    assert any("SHA-256" in note for note in report["notes"])
    both_links = any("1ayk6NXU" in note and "1FTuHY1x" in note for note in report["notes"])
    assert both_links == (name == "demo_e200.ckpt")


def test_a_name_that_says_nothing_gives_every_command(tmp_path, capsys):
    report = checked(official_skeleton("zs_resnet101_pascal", tmp_path / "download.ckpt"), capsys)
    assert len(report["commands"]) == 9


def test_a_name_of_another_network_is_noticed(tmp_path, capsys):
    report = checked(official_skeleton("zs_resnet101_pascal", tmp_path / "fss_l16.ckpt"), capsys)
    assert "fss_l16" not in report["can_be"]
    assert any("it is called fss_l16" in note for note in report["notes"])


def test_fingerprints_tell_files_and_weights_apart(tmp_path, capsys):
    first = official_file(tiny_net(), tmp_path / "first.ckpt")
    again = export_plain(load_lseg(first), tmp_path / "again.pth")  # float32, no visual tower, no prefix
    other = official_file(tiny_net(seed=1), tmp_path / "other.ckpt")
    reports = [checked(path, capsys) for path in (first, again, other)]
    assert len({report["sha256"] for report in reports}) == 3
    weights = [report["tensors_sha256"] for report in reports]
    assert weights[0] == weights[1] != weights[2]
    assert zoo.main(["check", str(first), str(again), str(other)]) == 0
    printed = capsys.readouterr().out
    assert weights[0] in printed and f"{first} and {again} contain the same weights" in printed
    assert f"{first} and {other} contain different weights" in printed


def test_weights_that_are_not_finite_are_reported(tmp_path, capsys):
    net = tiny_net()
    net.decoder.embedding.bias.data[0] = float("nan")
    report = checked(official_file(net, tmp_path / "diverged.ckpt"), capsys, code=1)
    assert report["misfits"] == {"not finite": ["scratch.head1.bias"]}


def test_a_file_that_is_not_whole(tmp_path, capsys):
    path = official_skeleton("zs_resnet101_pascal", tmp_path / "pascal_fold0.ckpt")
    content = torch.load(path)
    del content["state_dict"]["net.pretrained.layer1.0.weight"]
    content["state_dict"]["net.scratch.invented"] = torch.zeros(1)
    torch.save(content, path)
    report = checked(path, capsys, code=1)
    assert report["misfits"] == {
        "missing": ["pretrained.layer1.0.weight"],
        "unexpected": ["scratch.invented"],
    }
    assert report["can_be"] == [] and report["commands"] == []
    assert zoo.main(["check", str(path)]) == 1
    assert "missing: 1 (pretrained.layer1.0.weight)" in capsys.readouterr().out


def test_a_regularisation_block_is_told(tmp_path, capsys):
    report = checked(official_skeleton("vitb32_arch1_depth2_lrelu", tmp_path / "mine.ckpt"), capsys)
    assert report["can_be"] == [] and report["architecture"]["backbone"] == "clip_vitb32_384"
    assert any("--arch_option 1|2" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("trained", "command"),
    [
        ({"dataset": "ade20k"}, "test_lseg.py --eval --dataset ade20k --weights"),
        ({"dataset": "pascal", "zero_shot": {"fold": 2}}, "test_lseg_zs.py --fold 2 --dataset pascal --weights"),
        ({"dataset": "ade20k", "data_path": "/nowhere"}, "--dataset ade20k --data_path DATA_FOLDER --weights"),
        ({"dataset": "ade20k", "data_path": str(REPOSITORY)}, f"--data_path {shlex.quote(str(REPOSITORY))} --weights"),
        ({"dataset": "miniature"}, "--dataset miniature --data_path DATA_FOLDER --weights"),
        ({"dataset": "street", "dataset_file": "/none/s.yaml"}, "--dataset /none/s.yaml --weights"),
    ],
)
def test_a_file_of_this_project_says_it_itself(trained, command, tmp_path, capsys):
    net, path = tiny_net(), tmp_path / "last.ckpt"
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net, step=7, **trained)}, path)
    report = checked(path, capsys)
    assert report["trained"]["step"] == 7 and report["can_be"] == [] and command in report["commands"][0]
    explained = [note for note in report["notes"] if note.startswith("DATA_FOLDER in the command: the folder")]
    assert len(explained) == command.count("DATA_FOLDER")
    assert all(trained.get("data_path", "quickstart/datasets_seed0") in note for note in explained)


def test_what_was_measured_is_printed_number_by_number(tmp_path, capsys):
    net, path = tiny_net(), tmp_path / "last.ckpt"
    metric = {"val_miou": 0.612345, "val_pixacc": 0.9}
    save_file({"state_dict": to_official(net.state_dict()), "lseg": metadata_of(net, step=7, metric=metric)}, path)
    assert zoo.main(["check", str(path)]) == 0
    assert "written by this project: step 7, val_miou 0.6123, val_pixacc 0.9\n" in capsys.readouterr().out


def test_what_is_no_lseg_is_refused_and_the_others_are_reported(tmp_path, capsys):
    good = official_file(tiny_net(), tmp_path / "tiny.ckpt")
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.ckpt")
    torch.save({"x": attack(tmp_path / "executed")}, tmp_path / "evil.ckpt")
    files = [str(tmp_path / name) for name in ("other.ckpt", "tiny.ckpt", "evil.ckpt", "none.ckpt")]
    with pytest.raises(InputError) as caught:
        zoo.main(["check", *files])
    message = str(caught.value)
    assert "is not an LSeg checkpoint" in message and "is refused" in message and "there is no file" in message
    assert f"{good} (" in capsys.readouterr().out and not (tmp_path / "executed").exists()


def test_a_pattern_that_matches_nothing(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(InputError, match=r"no file matches \S+\*\.ckpt; that folder has model\.pth"):
        zoo.main(["check", str(tmp_path / "*.ckpt")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["chekc"], "'check'"),
        (["check"], "FILE"),
        (["file", "pascal"], "backbone"),
        (["list", "more"], "'more'"),
        (["check", "x.ckpt", "--jsn"], "--jsn"),
    ],
)
def test_a_command_line_that_does_not_fit(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        zoo.main(line)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_the_table_and_a_missing_file_need_no_torch(tmp_path):
    lines = [
        "import sys; from modules import zoo",
        "zoo.main([])",
        "try: zoo.main(['check', 'nothing.ckpt'])",
        "except ValueError as error: print(error)",
        "print('torch' in sys.modules)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert "there is no file nothing.ckpt" in done.stdout and done.stdout.endswith("False\n")


def test_the_file_of_a_fold(capsys):
    assert zoo.main(["file", "coco", "clip_resnet101", "--fold", "3"]) == 0
    assert capsys.readouterr().out == "coco_fold3.ckpt\n"
    assert released_file("fss", "clip_vitl16_384", 2) == "fss_l16.ckpt"  # no folds, whatever the number
    for unknown in (("coco", "clip_vitl16_384", 0), ("pascal", "clip_resnet101", 4)):
        with pytest.raises(InputError, match=r"no checkpoint was released.*--weights"):
            released_file(*unknown)


@pytest.mark.parametrize(
    ("name", "test", "expected"),
    [
        ("pascal_fold1.ckpt", ("pascal", 1, None), None),
        ("last.ckpt", ("coco", 1, "clip_resnet101"), None),
        ("fss_l16.ckpt", ("fss", 3, "clip_vitl16_384"), None),
        ("pascal_fold1.ckpt", ("miniature_zs", 0, None), None),
        ("pascal_fold1.ckpt", ("pascal", 2, None), "the right file is pascal_fold2.ckpt"),
        ("pascal_fold1.ckpt", ("coco", 1, "clip_resnet101"), "COCO commands.*by mistake; the right file is coco_fold1"),
        ("fss_l16.ckpt", ("fss", 0, "clip_resnet101"), "clip_vitl16_384 for fss.*the right file is fss_rn101.ckpt"),
        ("demo_e200.ckpt", ("pascal", 0, None), "seven datasets"),
    ],
)
def test_doubts_about_a_file_name(name, test, expected):
    doubts = file_name_doubts(Path("checkpoints") / name, *test)
    if expected is None:
        assert doubts == []
    else:
        (doubt,) = doubts
        assert re.search(expected, doubt), doubt


def test_weights_that_were_saved_with_gradients_are_identified(tmp_path):
    weights = {name: value.clone() for name, value in official_weights(tiny_net()).items()}
    weights["net.scratch.head1.weight"].requires_grad_()
    assert not identify(official_file(tiny_net(), tmp_path / "a.ckpt", weights)).misfits


@pytest.mark.parametrize("layout", ["plain", "lightning"])
def test_converted_files_are_read_by_plain_torch(tmp_path, capsys, layout):
    net, source, target = tiny_net("tiny_vit"), tmp_path / "demo.ckpt", tmp_path / "tensors.pt"
    official_file(net, source)
    assert zoo.main(["convert", str(source), str(target), "--layout", layout]) == 0
    content = torch.load(target, weights_only=True)
    weights = content if layout == "plain" else {name[4:]: value for name, value in content["state_dict"].items()}
    original = torch.load(source, weights_only=False)["state_dict"]
    assert {f"net.{name}" for name in weights} == set(original)
    assert all(torch.equal(value, original[f"net.{name}"]) for name, value in weights.items())
    assert f"{len(weights)} tensors" in capsys.readouterr().out
    named = LSegNet("", backbone="tiny_vit", features=16)
    named.load_state_dict(weights)
    assert torch.equal(load_lseg(target).decoder.embedding.weight, named.scratch.head1.weight)


def test_what_cannot_be_converted(tmp_path):
    net, source = tiny_net("tiny_vit"), tmp_path / "demo.ckpt"
    weights = {name: value for name, value in to_official(net.state_dict()).items() if "refinenet1" not in name}
    official_file(net, source, weights)
    with pytest.raises(InputError, match="missing"):
        zoo.main(["convert", str(source), str(tmp_path / "out.pt")])
    with pytest.raises(InputError, match=r"demo\.ckpt"):
        zoo.main(["convert", str(source), str(source)])
    assert not (tmp_path / "out.pt").exists()


def test_the_missing_default_of_test_sh_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"never released.*train\.sh.*--weights.*modules\.zoo"):
        check_weights_file(tmp_path / "lseg_ade20k_l16.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt; .*modules\.zoo"):
        check_weights_file(tmp_path / "other.ckpt")
