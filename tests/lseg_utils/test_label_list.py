"""Labels as people type them."""

from __future__ import annotations

from lseg_utils.label_list import duplicates, split_labels


def test_commas_and_lines_separate_and_blanks_do_not_count() -> None:
    assert split_labels(" a cat,dog\n\n the   sky ,\r\ncat, dog") == ["a cat", "dog", "the sky", "cat", "dog"]
    assert split_labels(" , \n") == split_labels("") == []


def test_duplicates_are_given_with_their_positions():
    assert duplicates(["cat", "dog", "cat", "sky", "cat"]) == {"cat": [0, 2, 4]}
    assert duplicates([]) == duplicates(["cat", "cats"]) == {}
    assert duplicates(["Wet  dog", "cat", "wet dog"]) == {"Wet  dog": [0, 2]}  # CLIP reads the same
