"""Label files: the official list, the corrected one, and files of a user."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from data import get_labels
from data.labels import LABEL_FILES, labels_from, read_label_file
from lseg_utils.errors import InputError


def test_the_official_list_is_cut_as_the_official_code_cuts_it() -> None:
    labels = get_labels("ade20k")
    assert len(labels) == 150
    assert labels[:4] == ["wall", "building", "sky", "floor"]
    assert (labels[64], labels[136], labels[149]) == ("coffee", "traffic", "flag")
    assert labels.count("screen") == 2


def test_the_corrected_list_differs_in_15_names_and_has_no_two_alike() -> None:
    official, corrected = get_labels("ade20k", "default"), get_labels("ade20k", "corrected")
    changed = [(old, new) for old, new in zip(official, corrected, strict=True) if old != new]
    assert len(changed) == 15
    assert ("traffic", "traffic light") in changed
    assert all(new.startswith(old) for old, new in changed)
    assert len(set(corrected)) == 150


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [("pascal", 20, "aeroplane", "tvmonitor"), ("coco", 80, "person", "toothbrush"), ("fss", 1000, None, None)],
)
def test_the_zero_shot_lists_are_whole(name: str, count: int, first: str | None, last: str | None) -> None:
    labels, doubts = read_label_file(LABEL_FILES / f"fewshot_{name}.txt")
    assert len(labels) == count and doubts == []
    assert first is None or (labels[0], labels[-1]) == (first, last)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "my_labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_blank_lines_spaces_and_the_mark_of_windows_editors_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfcat\r\n\r\n  dog, wet \r\n")
    assert read_label_file(path) == (["cat", "dog, wet"], [])


def test_lines_that_begin_with_a_hash_are_comments(tmp_path: Path) -> None:
    assert read_label_file(write(tmp_path, "# mine\ncat\n  #dog\ntrack #9\n"))[0] == ["cat", "track #9"]


def test_a_command_lines_labels_are_a_list_or_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "cat, asleep\ndog\n")
    assert labels_from(path) == ["cat, asleep", "dog"]
    assert labels_from("cat,  big  dog,,") == ["cat", "big dog"]
    assert labels_from("and/or, x") == ["and/or", "x"]
    with pytest.warns(UserWarning, match="'and/or' is the only label, so every pixel gets it"):
        assert labels_from("and/or") == ["and/or"]
    for missing in ("none.txt", "none.csv", str(tmp_path / "my_lables")):
        with pytest.raises(InputError, match="cannot read the label file"):
            labels_from(missing)


def test_marks_inside_joined_files_and_odd_spaces_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffcat\nwet\tdog\n\ufeffred\u00a0car\n")
    assert read_label_file(path) == (["cat", "wet dog", "red car"], [])


def test_a_label_twice_is_told_with_its_places(tmp_path: Path) -> None:
    labels, doubts = read_label_file(write(tmp_path, "cat\ndog\ncat\n"))
    assert labels == ["cat", "dog", "cat"]
    assert len(doubts) == 1 and "'cat' is label 0 and 2" in doubts[0]
    _, doubts = read_label_file(write(tmp_path, "Cat\ndog\ncat\n"))  # CLIP reads no case
    assert len(doubts) == 1 and "label 0 and 2" in doubts[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no label"),
        ("\n  \n", "contains no label"),
        ("cat\n" + "x" * 301 + "\n", "over 300 characters in label 1"),
        ("cat\nd\x00g\n", "control characters in label 1"),
        (b"\xff\xfe\x00c", "not a UTF-8 text file"),
    ],
)
def test_a_file_that_holds_no_labels_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"my_labels.txt.*{message}"):
        read_label_file(write(tmp_path, text))


def test_ade20k_takes_a_file_of_150_labels(tmp_path: Path) -> None:
    names = [f"thing {number}" for number in range(150)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_labels("ade20k", str(write(tmp_path, "\n".join(names)))) == names


def test_ade20k_warns_of_a_label_twice_in_a_users_file(tmp_path: Path) -> None:
    names = ["cat", "cat", *(f"thing {number}" for number in range(148))]
    with pytest.warns(UserWarning, match="'cat' is label 0 and 1"):
        get_labels("ade20k", str(write(tmp_path, "\n".join(names))))


def test_a_file_of_another_length_and_an_unknown_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains 2 labels.*150 values"):
        get_labels("ade20k", str(write(tmp_path, "cat\ndog\n")))
    with pytest.raises(InputError, match="'corected' is neither one of default, corrected nor a file"):
        get_labels("ade20k", "corected")
