"""prepare_ade20k.py from download to checked folders."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import data
import prepare_ade20k
from ade_tree import image_path, make_tree, mask_path
from local_server import Site, serve
from lseg_utils import download
from lseg_utils.errors import InputError
from scripts import run_light


def zip_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """The folder that the archives were made of."""
    root = make_tree(tmp_path / "original", train=3, val=2)
    (root / "release_test" / "testing").mkdir(parents=True)
    (root / "release_test" / "testing" / "t.jpg").write_bytes(image_path(root, "val", "a0").read_bytes())
    return root


@pytest.fixture
def site(original: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Both archives in miniature, and ``ARCHIVES`` pointed to them."""
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as running:
        archives = []
        for archive, counts in zip(prepare_ade20k.ARCHIVES, ((3, 2), (None,))):
            content = zip_of(original / archive.folder)
            running.contents[f"/{archive.file_name}"] = content
            archives.append(
                replace(
                    archive,
                    url=running.url(archive.file_name),
                    sha1=hashlib.sha1(content).hexdigest(),
                    archive_bytes=len(content),
                    unpacked_bytes=len(content),
                    parts=tuple(replace(part, count=count) for part, count in zip(archive.parts, counts)),
                )
            )
        monkeypatch.setattr(prepare_ade20k, "ARCHIVES", tuple(archives))
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def prepare(target: Path, *options: str) -> None:
    prepare_ade20k.main(["--data-path", str(target), *options])


def is_ready(target: Path) -> bool:
    return not data.problems("ade20k", target, ("train", "val", "test"))


def test_both_archives_arrive_and_the_dataset_reads_them(
    site: Site, target: Path, capsys: pytest.CaptureFixture
) -> None:
    prepare(target)
    assert is_ready(target)
    assert f"ADE20K is ready in {target}" in capsys.readouterr().out


def test_a_second_run_asks_for_nothing_also_without_the_archives(site: Site, target: Path) -> None:
    prepare(target)
    asked = len(site.asked)
    prepare(target)
    for path in (target / "downloads").iterdir():
        path.unlink()
    prepare(target)
    assert len(site.asked) == asked == 2
    assert sorted(path.name for path in target.iterdir()) == ["ADEChallengeData2016", "downloads", "release_test"]


def test_an_interrupted_download_is_continued_by_the_next_run(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    site.cut_after = 1000
    with pytest.raises(InputError, match="cut off after 1000 of"):
        prepare(target)
    prepare(target)
    assert site.asked[:2] == [None, "bytes=1000-"]
    assert is_ready(target)


def test_a_half_unpacked_folder_is_redone(site: Site, target: Path) -> None:
    prepare(target)
    image_path(target, "train", "a1").unlink()
    prepare(target)
    assert is_ready(target)
    assert len(site.asked) == 2  # the archive was still there


def test_a_file_cut_short_while_unpacking_elsewhere_is_noticed(site: Site, target: Path) -> None:
    prepare(target)
    whole = mask_path(target, "train", "a1").read_bytes()
    mask_path(target, "train", "a1").write_bytes(whole[:10])
    prepare(target)
    assert mask_path(target, "train", "a1").read_bytes() == whole


def test_a_folder_of_the_users_is_kept(site: Site, target: Path) -> None:
    make_tree(target, train=1, val=1)
    prepare(target)
    assert is_ready(target)
    assert (target / "ADEChallengeData2016.replaced" / "images" / "training" / "a0.jpg").is_file()


def test_a_wrong_checksum_stops_before_unpacking(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = prepare_ade20k.ARCHIVES
    monkeypatch.setattr(prepare_ade20k, "ARCHIVES", (replace(first, sha1="0" * 40), second))
    with pytest.raises(InputError, match="SHA-1"):
        prepare(target)
    assert not (target / first.folder).exists()


def test_an_archive_with_another_count_is_refused(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = prepare_ade20k.ARCHIVES
    parts = (replace(first.parts[0], count=20_210), first.parts[1])
    monkeypatch.setattr(prepare_ade20k, "ARCHIVES", (replace(first, parts=parts), second))
    with pytest.raises(InputError, match="3 images with masks instead of 20,210"):
        prepare(target)


def test_without_room_nothing_is_fetched(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = prepare_ade20k.ARCHIVES
    monkeypatch.setattr(prepare_ade20k, "ARCHIVES", (first, replace(second, unpacked_bytes=10**18)))
    with pytest.raises(InputError, match="only .* GB are free"):
        prepare(target)
    assert site.asked == []


def test_offline_the_message_says_what_to_put_where_and_that_works(
    site: Site, target: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = dict(site.contents)
    offline = tuple(replace(a, url=f"http://127.0.0.1:9/{a.file_name}") for a in prepare_ade20k.ARCHIVES)
    monkeypatch.setattr(prepare_ade20k, "ARCHIVES", offline)
    with pytest.raises(InputError) as caught:
        prepare(target)
    place = target / "downloads" / "ADEChallengeData2016.zip"
    for piece in (offline[0].url, offline[0].sha1, str(place), offline[1].url, offline[1].sha1):
        assert piece in str(caught.value)
    for path, content in served.items():
        (target / "downloads" / path[1:]).write_bytes(content)
    prepare(target)
    assert is_ready(target)


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_an_existing_copy_is_linked_and_again(site: Site, target: Path, original: Path, below: str) -> None:
    for _ in range(2):
        prepare(target, "--download-dir", str(original / below))
    assert (target / "ADEChallengeData2016").is_symlink()
    assert (target / "ADEChallengeData2016").resolve() == (original / "ADEChallengeData2016").resolve()
    assert data.problems("ade20k", target, ("train", "val")) == []
    assert (target / "release_test").is_symlink() == (below == "")
    assert site.asked == []


def test_an_incomplete_copy_is_not_linked(site: Site, target: Path, original: Path) -> None:
    mask_path(original, "train", "a1").unlink()
    with pytest.raises(InputError, match="not a complete copy of ADEChallengeData2016: 1 of 3 images have no mask"):
        prepare(target, "--download-dir", str(original))
    assert list(target.iterdir()) == []


def test_a_copy_that_does_not_exist_is_an_instruction(site: Site, target: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.*--download_dir"):
        prepare(target, "--download-dir", str(tmp_path / "nowhere"))


def test_a_link_does_not_replace_a_real_folder_but_an_old_link(site: Site, target: Path, original: Path) -> None:
    (target / "ADEChallengeData2016").mkdir(parents=True)
    with pytest.raises(InputError, match="exists and is not a link"):
        prepare(target, "--download-dir", str(original))
    (target / "ADEChallengeData2016").rmdir()
    (target / "ADEChallengeData2016").symlink_to(target / "gone")
    prepare(target, "--download_dir", str(original))
    assert is_ready(target)


def test_the_official_numbers() -> None:
    first, second = prepare_ade20k.ARCHIVES
    assert first.sha1 == "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"
    assert second.sha1 == "e05747892219d10e9243933371a497e905a4860c"
    assert [part.count for part in first.parts] == [20_210, 2_000]


def test_help_and_a_missing_copy_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    for arguments, code, fact in ((["--help"], 0, "--download_dir"), (["--download-dir", "nowhere"], 2, "nowhere")):
        assert fact in run_light("prepare_ade20k.py", *arguments, cwd=tmp_path, code=code)
