"""The miniature world: its pictures, masks, labels and tiny CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import clip
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import data
from lseg_utils.errors import InputError
from miniature import prepare as prepare_miniature
from miniature import world as miniature_world
from miniature.clip import (
    CONTEXT_LENGTH,
    SYNONYM_PROBABILITY,
    Captions,
    ClipSettings,
    all_captions,
    build_clip,
    draw_caption,
    full_state,
    make_clip,
    train_clip,
)
from miniature.drawing import Placement, coverage, draw_scene
from miniature.names import COLOURS, LABELS, SEEN, SHAPES, SYNONYMS, TEXTURES, UNSEEN, with_synonyms
from miniature.world import make_world

TINY_CLIP = ClipSettings(seed=0, steps=2, renderings=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    make_world(root, seed=0, training=12, validation=24)
    return root


def masks(root: Path, split: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((root / "miniature/annotations" / split).iterdir())]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------- the names


def test_34_seen_labels_then_the_6_diagonal_compositions() -> None:
    assert len(SEEN) == 34 and len(UNSEEN) == 6 and LABELS == SEEN + UNSEEN and len(set(LABELS)) == 40
    assert UNSEEN[0] == "red circle" and set(TEXTURES) <= set(SEEN)
    for words, place in ((COLOURS, 0), (SHAPES, 1)):  # every colour and every shape is seen in other company
        assert {label.split()[place] for label in SEEN if " " in label} == set(words)


def test_synonyms_share_no_word_with_any_label() -> None:
    assert with_synonyms("red circle") == "crimson disc"
    words = {word for label in LABELS for word in label.split()}
    assert set(SYNONYMS) == words and words.isdisjoint(SYNONYMS.values())
    assert len(set(map(with_synonyms, LABELS))) == 40


# ------------------------------------------------------------------------------------------------------- the world


def test_layout_and_files(root: Path) -> None:
    folder = root / "miniature"
    for split, count in (("training", 12), ("validation", 24)):
        images, annotations = (sorted((folder / kind / split).iterdir()) for kind in ("images", "annotations"))
        assert [path.stem for path in images] == [path.stem for path in annotations] and len(images) == count
        assert all(Image.open(path).size == (64, 64) for path in images + annotations)
        assert {path.suffix for path in images} == {".jpg"} and {path.suffix for path in annotations} == {".png"}
    assert (folder / "labels.txt").read_text().splitlines() == list(LABELS)
    assert (folder / "synonyms.txt").read_text().splitlines()[0] == with_synonyms(LABELS[0])
    world = json.loads((folder / "world.json").read_text())
    assert (world["seed"], world["num_seen"], world["counts"]) == (0, 34, {"training": 12, "validation": 24})


def test_training_never_shows_an_unseen_composition(root: Path) -> None:
    shown = {split: set(np.unique(np.stack(masks(root, split))).tolist()) for split in ("training", "validation")}
    assert shown["training"] <= set(range(1, 35)) and len(shown["training"]) > 20
    assert set(range(35, 41)) <= shown["validation"] <= set(range(1, 41))


def test_each_image_has_one_background_and_some_objects(root: Path) -> None:
    backgrounds = {LABELS.index(name) + 1 for name in TEXTURES}
    for mask in masks(root, "training") + masks(root, "validation"):
        found = set(np.unique(mask).tolist())
        assert len(found & backgrounds) == 1 and 1 <= len(found - backgrounds) <= 5


def test_the_same_seed_gives_the_same_files_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    make_world(tmp_path / "same", seed=0, training=12, validation=24)
    assert contents(tmp_path / "same") == contents(root)
    make_world(tmp_path / "other", seed=1, training=12, validation=24)
    assert any(contents(tmp_path / "other")[name] != value for name, value in contents(root).items() if ".jpg" in name)


def test_a_finished_world_is_recognised_and_other_settings_replace_it(tmp_path: Path) -> None:
    folder, made = make_world(tmp_path, seed=0, training=2, validation=1)
    assert made
    (folder / "clip_tiny.pt").write_bytes(b"weights")
    before = contents(folder)
    assert make_world(tmp_path, seed=0, training=2, validation=1) == (folder, False)
    assert contents(folder) == before
    assert make_world(tmp_path, seed=1, training=3, validation=1) == (folder, True)
    assert len(list((folder / "images/training").iterdir())) == 3
    assert not (folder / "clip_tiny.pt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["miniature"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "miniature" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("all of it")
    with pytest.raises(InputError, match="was not made by miniature.prepare"):
        make_world(tmp_path, seed=0, training=1, validation=1)
    assert precious.read_text() == "all of it"


def test_an_interrupted_world_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(miniature_world, "draw_scene", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_world(tmp_path, seed=0, training=1, validation=1)
    assert list(tmp_path.iterdir()) == []
    leftover = tmp_path / ".miniature.aside" / "images"  # as SIGKILL would leave it
    leftover.mkdir(parents=True)
    assert make_world(tmp_path, seed=0, training=1, validation=1)[1]
    assert [path.name for path in tmp_path.iterdir()] == ["miniature"]


def test_masks_follow_the_shapes() -> None:
    square = Placement("red square", x=32, y=32, radius=10, angle=0)
    image, mask = draw_scene("sand", [square], 64, np.random.default_rng(0))
    inside = mask == LABELS.index("red square") + 1
    # Half a side is 0.88 radii: columns 23.2 to 40.8, of which pixels 23..40 are covered by more than half.
    expected = np.zeros((64, 64), bool)
    expected[23:41, 23:41] = True
    assert (inside == expected).all() and (mask[~inside] == LABELS.index("sand") + 1).all()
    red, green, blue = image[inside].mean(axis=0)
    assert red > 180 and max(green, blue) < 80


def test_a_ring_shows_what_is_behind_it_and_later_objects_are_in_front() -> None:
    ring, disc = Placement("blue ring", 32, 32, 12, 0), Placement("red circle", 32, 32, 4, 0)
    mask = draw_scene("grass", [ring], 64, np.random.default_rng(0))[1]
    assert mask[32, 32] == LABELS.index("grass") + 1 and mask[32, 42] == LABELS.index("blue ring") + 1
    covered = draw_scene("grass", [ring, disc], 64, np.random.default_rng(0))[1]
    assert covered[32, 32] == LABELS.index("red circle") + 1 and covered[32, 42] == LABELS.index("blue ring") + 1


def test_edges_are_anti_aliased() -> None:
    share = coverage(Placement("red circle", 32, 32, 10, 0), 64)
    assert share.min() == 0 and share.max() == 1 and ((share > 0) & (share < 1)).sum() > 20
    assert share.sum() == pytest.approx(np.pi * 100, rel=0.04)


# ----------------------------------------------------------------------------------------------------- the dataset


def test_label_lists_and_their_defaults(root: Path) -> None:
    labels = {src: data.get_labels("miniature", src, root) for src in ("seen", "all", "synonyms")}
    assert labels["seen"] == list(SEEN) and labels["all"] == list(LABELS)
    assert labels["synonyms"][LABELS.index("red circle")] == "crimson disc"
    for split, mode, count in (("train", "train", 34), ("val", "val", 34), ("val", "testval", 40)):
        assert data.get_dataset("miniature", root=root, split=split, mode=mode).num_class == count


def test_unseen_things_are_unlabelled_while_training_and_labelled_in_the_test(root: Path) -> None:
    selection = data.get_dataset("miniature", root=root, split="val", label_src="seen", mode="testval")
    test = data.get_dataset("miniature", root=root, split="val", mode="testval")
    for i, truth in enumerate(masks(root, "validation")):
        image, mask = test[i]
        assert image.shape == (3, 64, 64) and (mask.numpy() + 1 == truth).all()
        assert (selection[i][1].numpy() == np.where(truth > 34, -1, truth.astype(int) - 1)).all()


def test_training_samples_have_the_size_of_the_world(root: Path) -> None:
    image, mask = data.get_dataset("miniature", root=root, split="train")[0]
    assert image.shape == (3, 64, 64) and mask.shape == (64, 64)
    assert data.problems("miniature", root) == []


def test_groups(root: Path) -> None:
    test = data.get_dataset("miniature", root=root, split="val", mode="testval")
    assert test.groups == {"seen": list(range(34)), "unseen": list(range(34, 40))}
    assert data.get_dataset("miniature", root=root).groups == {"seen": list(range(34))}


def test_without_a_world_the_message_tells_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=f"no folder .*miniature(.|\\n)*python -m miniature.prepare --data_path {tmp_path}"
    ):
        data.get_dataset("miniature", root=tmp_path)
    assert "miniature.prepare" in data.problems("miniature", tmp_path)[0]


# -------------------------------------------------------------------------------------------------------- the CLIP


def test_captions_draw_all_templates_and_both_words() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_caption("red circle", rng) for _ in range(2000)]
    assert set(drawn) <= set(all_captions()) and len(set(drawn)) == 7 * 4
    assert np.mean(["crimson" in caption for caption in drawn]) == pytest.approx(SYNONYM_PROBABILITY, abs=0.04)


def test_the_compact_text_tower_is_the_full_one() -> None:
    """Numbering tokens anew and cutting the padding off changes no embedding, so training them is exact."""
    names = ["red circle", "a photo of a crimson disc", "grass"]
    captions = Captions(all_captions())
    small, full = build_clip(64, len(captions.used), captions.longest).eval(), build_clip(64)
    full.load_state_dict(full_state(small, full, captions))
    with torch.inference_mode():
        expected = full.eval().encode_text(clip.tokenize(names, context_length=CONTEXT_LENGTH))
        torch.testing.assert_close(small.encode_text(captions(names)), expected, atol=1e-5, rtol=1e-5)


def test_the_file_is_an_openai_state_dict_with_all_it_was_trained_to(tmp_path: Path) -> None:
    path, accuracies, made = make_clip(tmp_path, TINY_CLIP)
    state = torch.load(path, weights_only=True)
    assert made and all(0 <= value <= 1 for value in accuracies.values()) and len(accuracies) == 4
    assert state["token_embedding.weight"].shape == (49408, 64) and state["positional_embedding"].shape == (16, 64)
    model = clip.model.build_model({name: value.clone() for name, value in state.items()}).float()
    with torch.inference_mode():
        text = F.normalize(model.encode_text(clip.tokenize(list(LABELS), context_length=16)), dim=-1)
        image = model.encode_image(torch.zeros(1, 3, 32, 32))
    assert text.shape == (40, 64) and image.shape == (1, 64) and torch.isfinite(text).all()


def test_training_is_a_function_of_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, accuracies = train_clip(TINY_CLIP)
    assert torch.equal(torch.rand(3), expected)
    again, accuracies_again = train_clip(TINY_CLIP)
    assert accuracies == accuracies_again and all(torch.equal(value, again[name]) for name, value in first.items())
    other, _ = train_clip(ClipSettings(seed=1, steps=2, renderings=2))
    assert not torch.equal(first["text_projection"], other["text_projection"])


@pytest.mark.slow
def test_training_learns_and_changes_used_tokens_only() -> None:
    """Forty steps find the colours: chance is 1 in 40, colours alone give about 1 in 6."""
    settings = ClipSettings(seed=0, steps=40, renderings=8)
    state, accuracies = train_clip(settings)
    assert accuracies["canonical, bare"] > 0.1 and accuracies["synonyms, bare"] > 0.1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = build_clip(64).state_dict()
    changed = (state["token_embedding.weight"] != untrained["token_embedding.weight"]).any(dim=1).nonzero()[:, 0]
    assert changed.tolist() == Captions(all_captions()).used.tolist()


@pytest.mark.slow
def test_prepare_miniature_makes_all_and_does_nothing_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ["--training", "2", "--validation", "1", "--zs_training", "1", "--zs_test", "1", "--clip_steps", "1"]
    arguments = ["--data-path", str(tmp_path), *counts]
    prepare_miniature.main(arguments)
    first = capsys.readouterr().out
    assert "clip_tiny.pt: made" in first and "synonyms, bare" in first
    before = contents(tmp_path)
    prepare_miniature.main(arguments)
    second = capsys.readouterr().out
    assert second == first.replace(": made", ": already there") and contents(tmp_path) == before
    prepare_miniature.main([*arguments[:-1], "2"])
    assert contents(tmp_path)["miniature/clip_tiny.pt"] != before["miniature/clip_tiny.pt"]


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--training", "0"], ["--clip_steps", "0"]])
def test_prepare_miniature_refuses_impossible_numbers(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(InputError, match="--seed must be at least 0"):
        prepare_miniature.main(["--data_path", str(tmp_path / "new"), *wrong])
    assert not (tmp_path / "new").exists()
