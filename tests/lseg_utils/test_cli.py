"""Spelling of flags, misspelt flags, and the help that shows defaults."""

from __future__ import annotations

import pytest

from lseg_utils.cli import Parser, normalise_flags


def test_dashes_inside_flags_become_underscores() -> None:
    assert normalise_flags(["--data-path", "--dry-run", "--a-b-c"]) == ["--data_path", "--dry_run", "--a_b_c"]


def test_values_are_untouched() -> None:
    arguments = ["--exp-name=my-run-1", "--data_path", "../my-data", "-v", "-0.5", "a--b-c"]
    assert normalise_flags(arguments) == ["--exp_name=my-run-1", "--data_path", "../my-data", "-v", "-0.5", "a--b-c"]


def test_a_value_that_only_looks_like_a_flag_is_untouched() -> None:
    assert normalise_flags(["--labels", "--not-a flag"]) == ["--labels", "--not-a flag"]


def test_nothing_changes_after_a_bare_double_dash() -> None:
    assert normalise_flags(["--a-b", "--", "--c-d"]) == ["--a_b", "--", "--c-d"]


@pytest.fixture
def parser() -> Parser:
    parser = Parser("Does a thing.")
    parser.add_argument("--batch_size", type=int, default=8, help="images per step")
    parser.add_argument("--weights", help="a file; default: the newest")
    return parser


def test_dashes_and_underscores_are_the_same_flag(parser: Parser) -> None:
    assert parser.parse(["--batch-size", "3"]).batch_size == parser.parse(["--batch_size=3"]).batch_size == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bacth-size", "3"], ["unknown option --bacth_size", "did you mean --batch_size?", "'3'"]),
        (["--batch_size", "many", "--wieghts=a"], ["'many'", "unknown option --wieghts (did you mean --weights?)"]),
        (["--nothing_like_it=4"], ["unknown option --nothing_like_it\n"]),
        (["--batch_size", "many"], ["--batch_size", "'many'"]),
    ],
)
def test_a_wrong_command_line_is_answered_in_two_lines(
    parser: Parser, arguments: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser.parse(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert all(text in said for text in expected)
    assert said.startswith("error: ") and said.count("\n") == 2


def test_an_unknown_option_is_reported_with_a_missing_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("Does a thing.")
    parser.add_argument("--weights", required=True, help="a file")
    with pytest.raises(SystemExit):
        parser.parse(["--wieght=a", "--", "--no_option"])
    said = capsys.readouterr().err
    assert "required: --weights" in said and "did you mean --weights?" in said and "no_option" not in said


def test_help_shows_values_that_are_defaults_only(parser: Parser) -> None:
    text = parser.format_help()
    assert "(default: 8)" in text and "(default: None)" not in text
