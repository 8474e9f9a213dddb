"""Verified, resumable downloads from a local server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_server import Site, serve
from lseg_utils import download as module
from lseg_utils.download import download, part_of
from lseg_utils.errors import InputError

CONTENT = bytes(range(256)) * 4000
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(CONTENT) as running:
        yield running


def test_a_download_arrives_and_a_second_one_asks_for_nothing(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "sub" / "file.zip"
    download(site.url(), target, SHA1)
    assert target.read_bytes() == CONTENT
    download(site.url(), target, SHA1)
    assert site.asked == [None]
    assert list(target.parent.iterdir()) == [target]


def test_what_an_earlier_run_left_is_continued(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file.zip"
    part_of(target).write_bytes(CONTENT[:1000])
    download(site.url(), target, SHA1)
    assert site.asked == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_again_by_itself(site: Site, tmp_path: Path) -> None:
    site.cut_after = 300_000
    download(site.url(), tmp_path / "file.zip", SHA1)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=300000-"]


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    target = tmp_path / "file.zip"
    part_of(target).write_bytes(b"something else")
    download(site.url(), target, SHA1)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_complete_already_is_accepted(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file.zip"
    part_of(target).write_bytes(CONTENT)
    download(site.url(), target, SHA1)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file.zip"
    part_of(target).write_bytes(CONTENT + b"more")
    download(site.url(), target, SHA1)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{SHA1}, not {'0' * 40}, and was removed"):
        download(site.url(), tmp_path / "file.zip", "0" * 40)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_with_a_wrong_checksum_is_named_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(b"another")
    with pytest.raises(InputError, match="file.zip has the SHA-1 .*remove it"):
        download(site.url(), tmp_path / "file.zip", SHA1)
    assert (tmp_path / "file.zip").read_bytes() == b"another"
    assert site.asked == []


def test_without_a_connection_the_message_says_what_to_put_where(site: Site, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/file.zip"  # the discard port: nothing listens
    with pytest.raises(InputError) as caught:
        download(nobody, tmp_path / "file.zip", SHA1)
    for piece in (nobody, SHA1, f"put it at {tmp_path / 'file.zip'}"):
        assert piece in str(caught.value)


def test_a_file_that_is_not_on_the_server_is_asked_for_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="404"):
        download(site.url("gone.zip"), tmp_path / "gone.zip", SHA1)
    assert len(site.asked) == 1
