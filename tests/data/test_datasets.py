"""Datasets by name: samples, modes, labels, and what is said of missing or broken files."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from ade_tree import image_path, make_tree, mask_path, truncate
from lseg_utils.errors import InputError
from scripts import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:.*officially")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "datasets")


def dataset(root: Path, **options: object) -> data.DescribedDataset:
    return data.get_dataset("ade20k", root=root, **{"base_size": 36, "crop_size": 32, **options})


def test_train_gives_crops_and_val_the_centre(root: Path) -> None:
    for split in ("train", "val"):
        image, mask = dataset(root, split=split).sample(0, np.random.default_rng(0))  # some crops miss the label
        assert image.shape == (3, 32, 32) and image.dtype == torch.float32
        assert mask.shape == (32, 32) and mask.dtype == torch.int64
        assert set(mask.unique().tolist()) == {-1, 7}
        assert -1 <= image.min() < image.max() <= 1


def test_testval_and_test_give_the_original_size(root: Path) -> None:
    image, mask = dataset(root, split="val", mode="testval")[1]
    with Image.open(image_path(root, "val", "a1")) as picture:
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    assert (mask[:, :20] == -1).all() and (mask[:, 20:] == 7).all()
    shutil.rmtree(root / "ADEChallengeData2016" / "annotations")
    image, name = dataset(root, split="val", mode="test")[1]
    assert image.shape == (3, 30, 40) and name == "a1.jpg"


def test_the_test_split_has_images_only(root: Path) -> None:
    folder = root / "release_test" / "testing"
    folder.mkdir(parents=True)
    shutil.copy(image_path(root, "val", "a0"), folder / "t.jpg")
    assert dataset(root, split="test")[0][1] == "t.jpg"
    with pytest.raises(InputError, match="no masks; use mode='test'"):
        dataset(root, split="test", mode="testval")


def test_names_labels_and_sizes(root: Path) -> None:
    ade = data.get_dataset("ade20k", root=root, split="val")
    assert len(ade) == 3 and len(list(ade)) == 3
    assert ade.name_of(2) == str(image_path(root, "val", "a2"))
    assert (ade.num_class, ade.labels[0], ade.groups) == (150, "wall", {})
    assert (ade.base_size, ade.crop_size) == (520, 480)
    assert data.get_dataset("ade20k", root=root, label_src="corrected").labels[64] == "coffee table"


def test_a_sample_depends_on_its_generator_only(root: Path) -> None:
    train = dataset(root)
    first, again, other = (train.sample(0, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_indexing_draws_anew_unless_a_seed_is_given(root: Path) -> None:
    torch.manual_seed(0)
    train, seeded = dataset(root), dataset(root, seed=3)
    assert not torch.equal(train[0][0], train[0][0])
    assert torch.equal(seeded[0][0], seeded[0][0])


def test_a_dataset_can_be_sent_to_a_worker(root: Path) -> None:
    train = dataset(root, seed=3)
    assert torch.equal(pickle.loads(pickle.dumps(train))[0][0], train[0][0])


def test_a_custom_transform_replaces_the_normalisation(root: Path) -> None:
    image, _ = dataset(root, transform=lambda picture: torch.tensor(picture.size))[0]
    assert image.tolist() == [32, 32]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_images_of_any_kind_become_rgb(root: Path, mode: str) -> None:
    path = image_path(root, "val", "a0")
    picture = Image.open(path).convert("L").convert(mode)
    path.unlink()
    picture.save(path.with_suffix(".jpg" if mode in ("L", "CMYK") else ".png"))
    image, _ = dataset(root, split="val", mode="testval")[0]
    assert image.shape == (3, 30, 40)
    assert (image[0] - image[1]).abs().max() < 0.05  # still grey


def test_unknown_choices_are_told_with_the_known_ones_all_at_once(root: Path) -> None:
    with pytest.raises(InputError, match=r"'ade' \(did you mean ade20k\?\).*data list"):
        data.get_dataset("ade", root=root)
    with pytest.raises(InputError) as caught:
        dataset(root, split="training", mode="vall", on_bad_image="ignore", crop_size=-1)
    for piece in ("'training'; choose one of train, val, test", "'vall'", "'ignore'", "crop_size -1"):
        assert piece in str(caught.value)


def test_a_test_may_not_skip_images(root: Path) -> None:
    with pytest.raises(InputError, match="must not leave out"):
        dataset(root, split="val", mode="testval", on_bad_image="skip")


def test_a_sound_dataset_has_no_problems(root: Path) -> None:
    assert data.problems("ade20k", root) == []
    data.check_dataset("ade20k", root, ("val",))


def test_fewer_images_than_officially_is_a_warning(root: Path) -> None:
    with pytest.warns(UserWarning, match="split val: 3 images here, 2,000 officially"):
        dataset(root, split="val")


def test_no_dataset_at_all_says_what_is_there_and_what_fetches_it(tmp_path: Path) -> None:
    (tmp_path / "something").mkdir()
    with pytest.raises(InputError) as caught:
        dataset(tmp_path)
    folder = tmp_path / "ADEChallengeData2016" / "images" / "training"
    for piece in (str(folder), "contains something", f"python prepare_ade20k.py --data_path {tmp_path}"):
        assert piece in str(caught.value)
    (text,) = data.problems("ade20k", tmp_path)
    assert "split train" in text and "split val" in text and text.count("python prepare_ade20k.py") == 1


def test_an_archive_that_is_not_unpacked_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "ADEChallengeData2016.zip").write_bytes(b"")
    with pytest.raises(InputError, match="ADEChallengeData2016.zip was downloaded but not"):
        data.check_dataset("ade20k", tmp_path)


def test_an_empty_folder_is_not_a_dataset(root: Path) -> None:
    for split in ("images", "annotations"):
        for path in (root / "ADEChallengeData2016" / split / "validation").iterdir():
            path.unlink()
    found = data.problems("ade20k", root, ("train", "val"))
    assert len(found) == 1
    assert "split val: no images in" in found[0] and "no masks in" in found[0] and "contains nothing" in found[0]


def test_half_a_dataset_is_told_with_every_missing_file(root: Path) -> None:
    mask_path(root, "train", "a1").unlink()
    image_path(root, "train", "a3").unlink()
    (found,) = data.problems("ade20k", root)
    assert "1 of 3 images have no mask" in found and "a1.jpg" in found
    assert "1 of 3 masks have no image" in found and "a3.png" in found
    with pytest.raises(InputError, match="a1.jpg"):
        dataset(root)


def test_a_mask_of_another_size_is_found_by_the_check_and_when_read(root: Path) -> None:
    Image.new("L", (30, 40)).save(mask_path(root, "val", "a1"))
    (found,) = data.problems("ade20k", root)
    assert "a1.png is 30x40, but its image a1.jpg is 40x30" in found
    with pytest.raises(InputError, match="a1.png is 30x40, but its image .*a1.jpg is 40x30"):
        dataset(root, split="val")[1]


def test_a_file_that_is_no_picture_is_found_by_the_check(root: Path) -> None:
    image_path(root, "val", "a2").write_text("not a picture")
    (found,) = data.problems("ade20k", root)
    assert "a2.jpg is not a readable image" in found


def test_one_error_shows_ten_problems_and_counts_the_rest(tmp_path: Path) -> None:
    make_tree(tmp_path, train=12, val=1)
    for number in range(12):
        Image.new("L", (1, 1)).save(mask_path(tmp_path, "train", f"a{number}"))
    with pytest.raises(InputError) as caught:
        data.check_dataset("ade20k", tmp_path)
    assert str(caught.value).count("is 1x1") == 10
    assert str(caught.value).endswith("12 problems in total")


def test_images_that_differ_only_by_their_suffix_are_reported(root: Path) -> None:
    shutil.copy(image_path(root, "val", "a1"), image_path(root, "val", "a1").with_suffix(".png"))
    (found,) = data.problems("ade20k", root)
    assert "a1.jpg and a1.png" in found
    for mode in ("val", "test"):
        with pytest.raises(InputError, match="a1.jpg"):
            dataset(root, split="val", mode=mode)


def test_hidden_files_of_other_systems_are_no_samples(root: Path) -> None:
    image_path(root, "val", "._a0").write_text("a resource fork")
    assert data.problems("ade20k", root) == []


def test_mask_values_outside_are_named_with_the_file(root: Path) -> None:
    path = mask_path(root, "train", "a2")
    mask = np.array(Image.open(path))
    mask[0, :3] = (151, 200, 255)
    Image.fromarray(mask).save(path)
    for on_bad_image in ("stop", "skip"):  # wrong labels are no damaged picture: never passed over
        with pytest.raises(InputError, match=r"a2.png contains the values 151 \(1 pixel\), 200.*0\.\.150"):
            dataset(root, on_bad_image=on_bad_image)[2]


def test_masks_of_wider_numbers_or_with_a_palette_are_read(root: Path) -> None:
    Image.fromarray(np.full((30, 40), 150, dtype=np.uint16)).save(mask_path(root, "val", "a0"))
    indexed = Image.fromarray(np.full((30, 40), 150, dtype=np.uint8))
    indexed.putpalette([7] * 768)  # the value counts, not the colour
    indexed.save(mask_path(root, "val", "a1"))
    for index in (0, 1):
        _, mask = dataset(root, split="val", mode="testval")[index]
        assert mask.unique().tolist() == [149]


def test_a_coloured_mask_is_refused(root: Path) -> None:
    Image.new("RGB", (40, 30)).save(mask_path(root, "val", "a0"))
    with pytest.raises(InputError, match="a0.png is an image of mode RGB"):
        dataset(root, split="val")[0]


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "optimize": True}])
def test_a_cut_off_jpeg_is_an_error_and_never_half_grey(root: Path, keep: float, options: dict) -> None:
    path = image_path(root, "train", "a1")
    noise = np.random.RandomState(0).randint(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    truncate(path, keep)
    with pytest.raises(InputError, match="a1.jpg cannot be read"):
        dataset(root)[1]


def test_a_cut_off_mask_is_an_error(root: Path) -> None:
    truncate(mask_path(root, "train", "a1"), 0.6)
    with pytest.raises(InputError, match="a1.png cannot be read"):
        dataset(root)[1]


def test_skip_takes_the_next_image_and_says_so(root: Path) -> None:
    truncate(image_path(root, "train", "a3"))
    train = dataset(root, on_bad_image="skip", seed=0)
    with pytest.warns(UserWarning, match="a3.jpg cannot be read"):
        image, _ = train[3]
    expected, _ = train.sample(0, np.random.default_rng((0, 3)))  # the one after the last is the first
    assert torch.equal(image, expected)


def test_skip_ends_where_nothing_can_be_read(root: Path) -> None:
    for number in range(4):
        truncate(image_path(root, "train", f"a{number}"))
    with pytest.raises(InputError, match="none of the 4 images can be read"):
        dataset(root, on_bad_image="skip")[0]


def test_real_images_pass_through(sample_folder: Path, tmp_path: Path) -> None:
    ade = tmp_path / "ADEChallengeData2016"
    shutil.copytree(sample_folder / "images", ade / "images" / "validation")
    shutil.copytree(sample_folder / "annotations", ade / "annotations" / "validation")
    assert data.problems("ade20k", tmp_path, ("val",)) == []
    for image, mask in data.get_dataset("ade20k", root=tmp_path, split="val"):
        assert image.shape == (3, 480, 480) and mask.shape == (480, 480)
        assert -1 <= mask.min() and 0 < mask.max() < 150


def test_names_labels_and_problems_need_neither_torch_nor_opencv(tmp_path: Path) -> None:
    program = (
        "import sys, data\n"
        "assert data.get_labels('pascal')[0] == 'aeroplane' and data.get_labels('ade20k')[0] == 'wall'\n"
        f"roots = {str(tmp_path)!r}\n"
        "from lseg_utils.errors import InputError\n"
        "def found(name):\n"
        "    try:\n"
        "        return data.problems(name, roots, ('val',))\n"
        "    except InputError as error:\n"
        "        return str(error)\n"
        "assert all(map(found, data.get_available_datasets()))\n"
        "print([name for name in ('torch', 'torchvision', 'cv2') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran.stderr


SHAPES = """
name: shapes
root: datasets/ADEChallengeData2016
splits: {train: {images: images/training, masks: annotations/training}}
labels: [shape 0, shape 1, shape 2, shape 3, shape 4, shape 5, shape 6, shape 7, shape 8, shape 9]
"""


def shapes(root: Path, more: str) -> str:
    """The YAML file of ten labels over the training masks of ``root``."""
    path = root.parent / "shapes.yaml"
    path.write_text(SHAPES + more)
    return str(path)


def write_masks(root: Path, values: np.ndarray) -> None:
    for number in range(4):
        Image.fromarray(values.astype(np.uint8)).save(mask_path(root, "train", f"a{number}"))


def test_a_dataset_without_a_fetch_command_still_says_what_is_missing(tmp_path: Path) -> None:
    (found,) = data.problems(shapes(tmp_path / "datasets", ""), splits=("train",))
    root = tmp_path / "datasets" / "ADEChallengeData2016"
    assert f"{root}/images/training" in found and f"put the files below {root}" in found


def test_masks_that_count_from_zero_are_doubted(root: Path) -> None:
    name, columns = shapes(root, "mask: {first: 1, ignore: [0]}"), np.arange(40) // 4
    write_masks(root, np.tile(columns, (30, 1)))  # 0..9 where 1..10 are meant
    with pytest.warns(UserWarning, match="value 10.*off by one: write first: 0"):
        assert data.problems(name, splits=("train",)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_masks(root, np.tile(columns + 1, (30, 1)))
        data.problems(name, splits=("train",))
        write_masks(root, np.tile(np.where(columns > 3, 3, columns), (30, 1)))  # few of the labels occur at all
        data.problems(name, splits=("train",))


def test_masks_with_255_for_unlabelled(root: Path) -> None:
    write_masks(root, np.tile(np.append(np.arange(39) // 4, 255), (30, 1)))
    name = shapes(root, "")  # the default: labels from 0, and 255
    assert data.problems(name, splits=("train",)) == []
    _, mask = data.get_dataset(name, split="train", mode="testval")[0]
    assert mask[0, ::4].tolist() == list(range(10)) and mask[0, -1] == -1
    (found,) = data.problems(shapes(root, "mask: {first: 1, ignore: [0]}"), splits=("train",))
    for piece in ("a0.png", "255 (30 pixels)", "0..10"):
        assert piece in found
