"""Errors that a user can put right: all of them at once, without the traceback of a worker around them."""

from __future__ import annotations

import pytest

from lseg_utils.errors import InputError, clean_message, did_you_mean, message_for_user, raise_all, run_script


def failing(text: str) -> None:
    raise InputError(text)


def test_all_that_is_wrong_is_one_error() -> None:
    with pytest.raises(InputError) as caught:
        raise_all(["first", "second"], lambda: failing("third"), lambda: 1, lambda: failing("fourth"))
    assert str(caught.value) == "first\nsecond\nthird\nfourth"


def test_nothing_wrong_and_other_errors_pass() -> None:
    raise_all([], lambda: None)
    with pytest.raises(ZeroDivisionError):
        raise_all(["first"], lambda: 1 // 0)


def test_the_instruction_is_taken_out_of_a_workers_traceback() -> None:
    wrapped = "Caught X in DataLoader worker process 0.\nTraceback ...\ndata.reading.UnreadableInputError: a.jpg is cut"
    assert clean_message(InputError(wrapped)) == "a.jpg is cut"


def test_a_killed_worker_is_named_whatever_it_interrupted() -> None:
    """PyTorch's signal handler raises inside any line, also one whose errors mean something else."""
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except RuntimeError as error:
            raise InputError("a.jpg is damaged") from error
    except InputError as error:
        assert "a data-loading worker died (DataLoader worker (pid 7)" in message_for_user(error)
    assert message_for_user(RuntimeError("shapes differ")) is None


@pytest.mark.parametrize(
    ("main", "code", "shown"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: failing("give --x"), 2, "error: give --x\n"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt), 130, "again"),
    ],
)
def test_a_script_ends_with_a_code_and_an_instruction(main, code, shown, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == code and shown in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lables", "labels"), ("LABELS", "labels"), ("--lablse", "labels"), ("ade", "ade20k"), ("cat", ""), ("ab", "")],
)
def test_only_similar_words_are_suggested(word: str, meant: str) -> None:
    assert did_you_mean(word, ["labels", "ade20k", "car", "abcdefgh"]) == (f" (did you mean {meant}?)" if meant else "")
