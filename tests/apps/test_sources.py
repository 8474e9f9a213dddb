"""The files that a run processes, and the names of their results, no two of them equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from apps.predict.sources import find_sources


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(inputs: list[Path | str], out: Path) -> list[tuple[str, str]]:
    sources, problems = find_sources([str(one) for one in inputs], out)
    assert not problems
    return [(source.name, source.kind) for source in sources]


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "b.JPG", "a/c.v2.png", "a/clip.MOV", "notes.txt", ".git/x.png", "._b.jpg")
    assert names([folder], tmp_path / "out") == [("a/c.v2", "picture"), ("a/clip", "video"), ("b", "picture")]


def test_results_in_the_folder_are_not_inputs(tmp_path: Path) -> None:
    folder = touch(tmp_path, "b.jpg", "out/overlays/b.jpg")
    assert names([folder], folder / "out") == [("b", "picture")]


def test_several_folders_keep_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/a.jpg", "odd.name")
    found = names([tmp_path / "x", tmp_path / "y", tmp_path / "odd.name"], tmp_path / "out")
    assert found == [("x/a", "picture"), ("y/a", "picture"), ("odd", "picture")]


def test_files_that_differ_by_their_suffix_alone_keep_it(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "a.jpg", "a.png", "b.jpg", "c.jpg", "c/d.jpg")
    assert {name for name, _ in names([folder], tmp_path / "out")} == {"a_jpg", "a_png", "b", "c_jpg", "c/d"}


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/a.jpg")
    _, problems = find_sources([str(tmp_path / "x/a.jpg"), str(tmp_path / "y/a.jpg")], tmp_path / "out")
    assert len(problems) == 1 and "would both be written as a_jpg" in problems[0]


def test_a_number_is_a_camera_unless_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((name, kind),) = names(["0"], tmp_path / "out")
    assert name.startswith("camera0_") and kind == "camera"
    touch(tmp_path, "0")
    assert names(["0"], tmp_path / "out") == [("0", "picture")]


def test_only_a_gif_that_moves_is_a_video(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    touch(tmp_path, "broken.gif")
    assert names([tmp_path], tmp_path / "out") == [("broken", "picture"), ("moving", "video"), ("still", "picture")]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder, elsewhere = touch(tmp_path / "in", "a.jpg"), touch(tmp_path / "elsewhere", "b.jpg")
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    assert [name for name, _ in names([folder], tmp_path / "out")] == ["a", "link/b"]


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "notes.txt")
    _, problems = find_sources([str(folder), str(tmp_path / "missing.jpg")], tmp_path / "out")
    assert str(folder) in problems[0] and "missing.jpg" in problems[1]


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.chdir(touch(tmp_path, "a.jpg"))
    sources, problems = find_sources([blank], tmp_path / "out")
    assert sources == [] and "an input is blank" in problems[0]


def test_the_output_folder_is_not_an_input(tmp_path: Path) -> None:
    sources, problems = find_sources([str(touch(tmp_path / "in", "a.jpg"))], tmp_path / "sub" / ".." / "in")
    assert sources == [] and "choose another output folder" in problems[0]


def test_names_that_differ_only_by_case_are_told_apart(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "Cat.jpg", "cat.jpg", "dog.jpg")
    found = [name for name, _ in names([folder], tmp_path / "out")]
    assert len({name.casefold() for name in found}) == 3 and "dog" in found
    assert {name[:3] for name in found} == {"Cat", "cat", "dog"}


def test_long_names_leave_room_for_suffixes(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", f"{'x' * 250}.jpg", f"{'x' * 249}y.jpg", f"{'猫' * 83}.jpg", "short.jpg")
    found = [name for name, _ in names([folder], tmp_path / "out")]
    assert len(set(found)) == 4 and max(len(name.encode()) for name in found) <= 230 and "short" in found


def test_a_folder_named_like_the_frames_of_a_video_has_another_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "clip.mp4", "clip.frames/000000.png")
    assert [name for name, _ in names([folder], tmp_path / "out")] == ["clip_frames/000000", "clip"]
