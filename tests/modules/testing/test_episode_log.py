"""The finished part of a zero-shot test: resumed by the same test, not by another, and never garbled by a kill."""

from __future__ import annotations

from pathlib import Path

from modules.testing.episode_log import EpisodeLog

AREAS = [[1, 2], [3, 4]]


def test_all_processes_of_the_same_test_are_resumed(tmp_path: Path) -> None:
    for rank in (0, 1):
        log = EpisodeLog(tmp_path, {"fold": 0}, rank)
        log.add({rank: AREAS}, [""])
        log.add({rank + 10: AREAS}, ["no pixel of the class: a.png\nanother size: a.png"])
    assert EpisodeLog(tmp_path, {"fold": 0}, 0).finished() == dict.fromkeys((0, 1, 10, 11), AREAS)
    assert EpisodeLog(tmp_path, {"fold": 0}, 0).notes() == {"no pixel of the class: a.png", "another size: a.png"}
    assert EpisodeLog(tmp_path, {"fold": 1}, 0).finished() == {}


def test_another_test_in_the_same_process_keeps_to_itself(tmp_path: Path) -> None:
    for fold in (0, 1):
        EpisodeLog(tmp_path, {"fold": fold}, 0).add({fold: AREAS}, [""])
    for fold in (0, 1):
        assert EpisodeLog(tmp_path, {"fold": fold}, 0).finished() == {fold: AREAS}


def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path: Path) -> None:
    EpisodeLog(tmp_path, {"fold": 0}, 0).add({3: AREAS, 4: AREAS}, ["", ""])
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-5])
    assert EpisodeLog(tmp_path, {"fold": 0}, 0).finished() == {3: AREAS}


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path, {"fold": 0}, 0)
    log.add({3: AREAS}, [""])
    log.remove()
    assert list(tmp_path.iterdir()) == []
