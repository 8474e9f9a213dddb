"""Unpacking archives: nothing lands outside the target, nothing is half done."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from lseg_utils.errors import InputError
from lseg_utils.unpack import missing_members, unpack

GOOD = {"world/a.txt": "a", "world/sub/b.txt": "bb"}


def archive_of(folder: Path, members: dict[str, str]) -> Path:
    path = folder / "file.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_everything_arrives_and_nothing_else(tmp_path: Path) -> None:
    into = tmp_path / "into"
    assert unpack(archive_of(tmp_path, GOOD), into) == []
    assert names_below(into) == set(GOOD)
    assert (into / "world/sub/b.txt").read_text() == "bb"
    assert [path.name for path in into.iterdir()] == ["world"]


@pytest.mark.parametrize("name", ["../evil.txt", "world/../../evil.txt", "/evil.txt"])
def test_no_member_leaves_the_target(tmp_path: Path, name: str) -> None:
    into = tmp_path / "a" / "into"
    unpack(archive_of(tmp_path, {**GOOD, name: "evil"}), into)
    assert all(path.is_relative_to(into) for path in tmp_path.rglob("evil.txt"))


def test_a_link_is_not_made(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, GOOD)
    link = zipfile.ZipInfo("world/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc")
    unpack(archive, tmp_path / "into")
    assert not (tmp_path / "into" / "world" / "link").is_symlink()


def test_a_half_unpacked_folder_is_redone(tmp_path: Path) -> None:
    into = tmp_path / "into"
    (into / ".file.unpacking" / "world").mkdir(parents=True)
    (into / ".file.unpacking" / "world" / "left_over.txt").write_text("x")
    unpack(archive_of(tmp_path, GOOD), into)
    assert names_below(into) == set(GOOD)


def test_what_was_in_the_way_is_renamed_not_deleted(tmp_path: Path) -> None:
    into, archive = tmp_path / "into", archive_of(tmp_path, GOOD)
    (into / "world").mkdir(parents=True)
    (into / "world" / "mine.txt").write_text("mine")
    assert unpack(archive, into) == [into / "world.replaced"]
    assert unpack(archive, into) == [into / "world.replaced2"]
    assert (into / "world.replaced" / "mine.txt").read_text() == "mine"
    assert names_below(into / "world") == {"a.txt", "sub/b.txt"}


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    into, elsewhere = tmp_path / "into", tmp_path / "elsewhere"
    into.mkdir()
    elsewhere.mkdir()
    (into / "world").symlink_to(elsewhere)
    unpack(archive_of(tmp_path, GOOD), into)
    assert list(elsewhere.iterdir()) == []
    assert not (into / "world").is_symlink()


def test_a_damaged_archive_puts_nothing_in_place(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, {"world/a.txt": "0123456789" * 50})
    content = bytearray(archive.read_bytes())
    content[45] ^= 0xFF  # inside the compressed bytes of the first member
    archive.write_bytes(content)
    with pytest.raises(InputError, match="file.zip is not an intact zip"):
        unpack(archive, tmp_path / "into")
    assert not (tmp_path / "into" / "world").exists()


def test_a_file_that_is_not_an_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_text("<html>log in first</html>")
    with pytest.raises(InputError, match="file.zip is not an intact zip"):
        unpack(tmp_path / "file.zip", tmp_path / "into")


def test_missing_members_are_those_absent_or_of_another_size(tmp_path: Path) -> None:
    into, archive = tmp_path / "into", archive_of(tmp_path, {**GOOD, "world/c.txt": "c"})
    unpack(archive, into)
    assert missing_members(archive, into) == []
    (into / "world/a.txt").unlink()
    (into / "world/sub/b.txt").write_text("b")
    assert missing_members(archive, into) == ["world/a.txt", "world/sub/b.txt"]
