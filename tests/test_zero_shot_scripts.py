"""train_lseg_zs.py, test_lseg_zs.py and the recipes as a user runs them, on tiny trees in the three real layouts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import test_lseg_zs as test_script
import train_lseg_zs as train_script
from data.episodes import splits_in
from data.episodes import test_episodes as official_episodes
from fewshot_trees import few_pairs, make_coco, make_pascal, make_tree, replace
from lseg_utils.errors import InputError
from miniature.clip import ClipSettings, make_clip
from miniature.dataset_zs import make_fewshot_world
from miniature.world import make_world
from modules.checkpoints import to_official
from modules.models import build_lseg
from modules.safe_load import read_torch_file
from paper.stand_in import write_small_splits
from scripts import REPOSITORY, TINY, environment, python_file, run, run_light, torchrun

README = "--module clipseg_DPT_test_v2 --widehead --no-scaleinv --arch_option 0 --ignore_index 255 --nshot 0".split()


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the official format: whole state dict under ``net.``, no hyper-parameters."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("official") / "pascal_fold0.ckpt"
    torch.save({"state_dict": to_official(build_lseg("tiny_resnet", None, features=16).state_dict())}, path)
    return path


def options_of_a_test(root: Path, official: Path, dataset: str, *more: object) -> list[object]:
    places = ("--datapath", root, "--output_dir", root.parent / "out", "--logpath", root.parent / "logs")
    common = ("--crop_size", 32, "--nworker", 0, "--device", "cpu")
    return ["--dataset", dataset, "--weights", official, *places, *common, *more]


def results(root: Path) -> dict:
    return json.loads((root.parent / "out" / "results.json").read_text())


@pytest.mark.parametrize(
    "dataset", ["pascal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("coco", "fss"))]
)
def test_readme_commands_run_on_every_benchmark(dataset, official, tmp_path):
    root = make_tree(dataset, tmp_path / "data", fold=1)
    options = options_of_a_test(root, official, dataset, "--backbone", "tiny_resnet", "--fold", 1, "--bsz", 50, *README)
    output = run("test_lseg_zs.py", *options, "--save_pictures", 2, cwd=tmp_path)
    assert "FB-IoU" in output and "note: pascal_fold0.ckpt" in output  # pascal_fold0.ckpt on another fold or benchmark
    found = results(root)
    assert found["precision"] == "float32"
    (log,) = (tmp_path / "logs").iterdir()
    assert " float32 mIoU " in log.read_text() and "float32" in (tmp_path / "out" / "report.html").read_text()
    assert found["episodes"] == {"pascal": 1000, "coco": 1000, "fss": 2400}[dataset]
    assert len(found["per_class_iou"]) == {"pascal": 5, "coco": 20, "fss": 240}[dataset]
    assert (tmp_path / "out" / "sheet.png").is_file() and not list((tmp_path / "out").glob(".unfinished*"))


@pytest.fixture
def few_episodes(tmp_path: Path) -> Iterator[Path]:
    """Pascal's lists with two images of each class, in force in this process, and a tree for them; their folder."""
    write_small_splits(tmp_path / "splits")
    with splits_in(tmp_path / "splits"):
        make_pascal(tmp_path / "data", fold=0)
        yield tmp_path / "splits"


def measure(*options: object) -> None:
    """The script's ``main`` in this process."""
    test_script.main(list(map(str, options)))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_batches_workers_and_processes_do_not_change_the_result(few_episodes, official, tmp_path):
    root = tmp_path / "data"
    options = options_of_a_test(root, official, "pascal", "--fold", 0)
    found = {}
    for bsz, workers in ((1, 0), (7, 2)):
        measure(*options, "--bsz", bsz, "--nworker", workers)
        found[bsz, workers] = results(root)
    torchrun(2, "tests/small_zero_shot_test.py", few_episodes, *options, "--bsz", 3, cwd=tmp_path)
    found["two processes"] = results(root)
    first = found[1, 0]
    assert first["distinct_pairs"] == len(set(official_episodes("pascal", 0))) > 7 and first["miou"] > 0
    for name, other in found.items():
        assert other["miou"] == pytest.approx(first["miou"], abs=1e-4), name  # percent: 1e-6 of the mIoU
        assert other["fb_iou"] == pytest.approx(first["fb_iou"], abs=1e-4), name


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "few_episodes")
def test_a_corrupt_image_ends_the_test_and_what_is_done_is_resumed(official, tmp_path, capsys):
    root = tmp_path / "data"
    options = options_of_a_test(root, official, "pascal", "--fold", 0, "--bsz", 4)
    measure(*options)
    undisturbed, pages = results(root), root.parent / "out" / "report.html"
    page = pages.read_text()
    assert "The 5 best episodes" in page and page.count("data:image/jpeg") == 2
    *_, (_, name) = dict.fromkeys(official_episodes("pascal", 0))
    bad = replace(root / "VOC2012" / "JPEGImages" / f"{name}.jpg")
    content = bad.read_bytes()
    bad.write_bytes(content[:-20])  # the header is whole, so only decoding finds it
    with pytest.raises(InputError) as caught:
        measure(*options)
    assert str(bad) in str(caught.value)
    bad.write_bytes(content)
    capsys.readouterr()
    measure(*options)
    assert "resuming an unfinished test" in capsys.readouterr().out
    assert results(root) == undisturbed and pages.read_text() == page


def test_shuffled_names_are_another_result_and_unusual_masks_are_named_once(official, tmp_path, capsys):
    root = make_pascal(tmp_path / "data", fold=0)
    mask = replace(root / "VOC2012" / "SegmentationClassAug" / f"{official_episodes('pascal', 0)[0][1]}.png")
    Image.new("L", (8, 8), 1).save(mask)
    options = options_of_a_test(root, official, "pascal", "--fold", 0, "--bsz", 50)
    found = []
    for more in ((), ("--shuffle_labels", 0)):
        test_script.main([str(option) for option in (*options, *more)])
        found.append(results(root)["per_class_iou"])
        (unusual,) = (line for line in results(root)["unusual_masks"] if "another size" in line)
        assert str(mask) in unusual and capsys.readouterr().out.count(unusual) == 1
    assert found[0] != found[1] and results(root)["setting"] == "zero-shot"


BAD_INPUT = {
    "no data": (["--datapath", "nothing"], "VOC2012"),
    "fold": (["--fold", 4], "fold"),
    "shots": (["--nshot", 3], "nshot"),
    "backbone": (["--backbone", "clip_vitl16_384"], "is a tiny_resnet"),
    "batch": (["--bsz", 0], "--bsz is 0"),
    "another benchmark": (["--benchmark", "coco"], "--benchmark coco"),
    "a negative sheet": (["--save_pictures", -1], "--save_pictures is -1"),
    "no checkpoint": (["--weights", "no.ckpt"], "no.ckpt"),
}


@pytest.fixture(scope="module")
def pascal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pascal(tmp_path_factory.mktemp("pascal") / "data", fold=0)


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_named(name, pascal, official):
    options, fact = BAD_INPUT[name]
    with pytest.raises(InputError) as caught:
        test_script.main([str(option) for option in options_of_a_test(pascal, official, "pascal", *options)])
    assert fact in str(caught.value)


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        (["--help"], 0, "--nshot"),
        (["--weihgts", "x"], 2, "--weights"),
        (["--weights", "no.ckpt"], 2, "no.ckpt"),
        (["--weights", "OFFICIAL", "--datapath", "nowhere"], 2, "nowhere"),
    ],
    ids=["help", "a misspelt option", "no checkpoint", "no data"],
)
def test_quick_answers_come_before_torch_is_imported(official, tmp_path, options, code, fact):
    options = [option.replace("OFFICIAL", str(official)) for option in options]
    assert fact in run_light("test_lseg_zs.py", *options, cwd=tmp_path, code=code)


# ------------------------------------------------------------------------------------------------------ training


def train_arguments(root: Path, *more: object) -> list[object]:
    tiny = ["tiny_resnet" if option == "tiny_vit" else option for option in TINY]
    place = tiny.index("--base_size")
    del tiny[place : place + 2]
    return ["--dataset", "pascal", "--data_path", root, "--checkpoint_dir", root.parent / "runs", *tiny, *more]


@pytest.mark.parametrize(
    ("dataset", "kept"),
    [("pascal", {"borders": "others"}), ("coco", {"classes_drawn": "uniformly"}), ("fss", {}), ("miniature_zs", {})],
)
def test_runs_from_before_the_published_loss_and_sampling_are_not_resumed(dataset, kept):
    options = train_script.build_parser().parse(["--dataset", dataset, "--select", "held_out"])
    choice = SimpleNamespace(fold=0, nshot=1)
    old = {"fold": 0, "nshot": 1, "finetune_mode": False, "select": "held_out", "selection_classes": [7]}
    assert train_script.facts_of_the_run(options, choice, [7]) == old | kept  # compared on resuming


def checked(dataset: str, root: Path, *more: object) -> str:
    """What the checks before training refuse, in one message."""
    options = ["--dataset", dataset, *train_arguments(root, "--select", "official", *more)[2:]]
    with pytest.raises(InputError) as caught:
        train_script.check_all(train_script.build_parser().parse(list(map(str, options))))
    return str(caught.value)


def test_data_that_cannot_be_trained_on_are_refused_before_training(tmp_path, monkeypatch):
    root = tmp_path / "data"
    pairs = few_pairs("coco", 0, "train", each=3)
    make_coco(root, pairs=pairs)
    make_coco(root, pairs=few_pairs("coco", 0, "val", each=2))
    episodes = few_pairs("coco", 0, "val", each=2)
    monkeypatch.setattr("data.episodes.official_pairs", lambda _, fold, role: pairs if role == "train" else episodes)
    monkeypatch.setattr("data.episodes.evaluation_sequence", lambda *_: episodes)
    fewer = checked("coco", root, "--nshot", 5)
    assert "coco, fold 0, train: --nshot 5 needs 5" in fewer and "class 1 (bicycle) has 2" in fewer
    few = checked("coco", root, "--nshot", 5, "--finetune_mode")
    assert "coco, fold 0, finetune: --nshot 5 needs 5" in few and "class 0 (person) has 1" in few
    lacking = root / "COCO2014" / pairs[0][1]
    lacking.unlink()
    assert lacking.name in checked("coco", root, "--nshot", 0)
    pairs = [pair for pair in pairs if pair[0] != 1]
    assert "coco, fold 0, train: there are no images of class 1 (bicycle)" in checked("coco", root, "--nshot", 0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options", [["--nshot", 1], ["--nshot", 5, "--finetune_mode"], ["--nshot", 0, "--select", "official"]]
)
def test_trains_on_support_images_too_and_says_what_chose_the_epoch(options, tmp_path, monkeypatch, capsys):
    pairs = {role: few_pairs("pascal", 0, role, each=6) for role in ("train", "val")}
    for own in pairs.values():
        make_pascal(tmp_path / "data", pairs=own)
    monkeypatch.setattr(
        "data.episodes.official_pairs", lambda _, fold, role: pairs["train" if role == "train" else "val"]
    )
    monkeypatch.setattr("data.episodes.evaluation_sequence", lambda *_: pairs["val"])
    more = ["--dry_run", "--batch_size", 4, *options]
    train_script.main(list(map(str, train_arguments(tmp_path / "data", *more))))
    output = "".join(capsys.readouterr())
    assert "train_loss" in output and "val_miou_epoch" in output


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's four folds with few pictures, and its CLIP, made once."""
    folder = tmp_path_factory.mktemp("world")
    make_clip(make_world(folder, 0, 2, 2)[0], ClipSettings(0, steps=2, renderings=2))
    make_fewshot_world(folder, 0, 4, 2)  # a texture is in half of the pictures
    return folder


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    """The small world as ``tmp_path``/world."""
    (tmp_path / "world").symlink_to(small_world)
    return tmp_path / "world"


@pytest.mark.slow
@pytest.mark.xdist_group("small world")
def test_a_run_of_one_fold_is_not_taken_up_for_another(world, tmp_path):
    """Both folds have the same labels and network; going on would train on the classes that the other fold tests."""
    options = train_arguments(world, "--max_epochs", 1, "--batch_size", 8, "--exp_name", "same")
    options[options.index("pascal")] = "miniature_zs"
    run("train_lseg_zs.py", *options, "--fold", 0, cwd=tmp_path)
    output = run("train_lseg_zs.py", *options, "--fold", 1, cwd=tmp_path, code=2)
    assert "started differently" in output and "fold" in output and "--exp_name" in output


SMALL = ("--batch_size", "16", "--crop_size", "32")


def recipe(folder: Path, runs: str, *more: str) -> list[str]:
    """train_zs.sh on the small world in ``folder``."""
    places = ["--data_path", "world", "--clip_weights", "world/miniature/clip_tiny.pt", "--checkpoint_dir", runs]
    tiny = ["--num_features", "16", "--backbone_weights", "random", "--workers", "0", "--accelerator", "cpu"]
    line = ["bash", str(REPOSITORY / "train_zs.sh"), "miniature_zs", "tiny_resnet", *places, *tiny, *SMALL]
    return [*line, *more]


def start(folder: Path, line: list[str]) -> subprocess.Popen:
    """The recipe at work; its process group can be killed as a whole."""
    return subprocess.Popen(
        line,
        cwd=folder,
        env=environment(PYTHON=python_file()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, line: list[str], code: int = 0) -> str:
    process = start(folder, line)
    output = process.communicate(timeout=400)[0]
    assert process.returncode == code, output[-3000:]
    return output


def kill_when(pattern: str, folder: Path, line: list[str]) -> None:
    """Start the recipe and kill it as soon as a file of ``pattern`` is in ``folder``."""
    process, deadline = start(folder, line), time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.xdist_group("small world")
@pytest.mark.usefixtures("world")
def test_miniature_recipe_survives_kills_and_prints_the_same_table(tmp_path):
    """train_zs.sh on one fold of a small world, undisturbed and killed twice on the way."""
    options = ["--folds", "1", "--control", "--lrs", "0.004 0.008", "--max_epochs", "2"]
    table = "zs_miniature_zs_tiny_resnet_results/table.json"
    output = finish(tmp_path, recipe(tmp_path, "calm", *options))
    assert "seen classes kept from training" in output
    metadata = read_torch_file(next((tmp_path / "calm").glob("*fold1*/version_0/checkpoints/last.ckpt")))["lseg"]
    assert metadata["zero_shot"]["select"] == "held_out" and metadata["zero_shot"]["fold"] == 1

    again = recipe(tmp_path, "killed", *options)
    kill_when("killed/*fold1_lr0.008/version_0/checkpoints/last.ckpt", tmp_path, again)  # in the second training
    kill_when("killed/*_results/fold1/results.json", tmp_path, again)  # between the test and its control
    finish(tmp_path, again)
    undisturbed = json.loads((tmp_path / "calm" / table).read_text())
    assert json.loads((tmp_path / "killed" / table).read_text()) == undisturbed


@pytest.mark.slow
@pytest.mark.xdist_group("small world")
@pytest.mark.usefixtures("world")
def test_another_seed_has_runs_of_its_own_and_other_options_are_refused(tmp_path):
    options = ["--folds", "0", "--max_epochs", "1"]
    # A call that was refused binds nobody to its options.
    refused = recipe(tmp_path, "runs", *options, "--seed", "0", "--weight_decay", "0.01", "--data_path", "nowhere")
    assert "nowhere" in finish(tmp_path, refused, code=2)
    weights = {}
    for seed in ("0", "1"):
        folds = ["--folds", "0 1"] if seed == "0" else []  # the later option counts
        finish(tmp_path, recipe(tmp_path, "runs", *options, "--seed", seed, *folds))
        results = tmp_path / "runs" / f"zs_miniature_zs_tiny_resnet_results_seed{seed}" / "fold0" / "results.json"
        weights[seed] = read_torch_file(Path(tmp_path, json.loads(results.read_text())["weights"]))["state_dict"]
    name = "net.scratch.head1.weight"
    assert not torch.equal(weights["0"][name], weights["1"][name])
    output = finish(tmp_path, recipe(tmp_path, "runs", *options, "--seed", "0", "--base_size", "80"), code=2)
    assert "fold0_lr0.004_seed0 was trained with other options" in output and "--base_size 80" in output
