from __future__ import annotations

from encoding_ext.cli import normalise_flags


def test_dashes_inside_flags_become_underscores() -> None:
    assert normalise_flags(["--data-path", "--dry-run", "--a-b-c"]) == ["--data_path", "--dry_run", "--a_b_c"]


def test_values_are_untouched() -> None:
    arguments = ["--exp-name=my-run-1", "--data_path", "../my-data", "-v", "-0.5", "a--b-c"]
    assert normalise_flags(arguments) == ["--exp_name=my-run-1", "--data_path", "../my-data", "-v", "-0.5", "a--b-c"]


def test_a_value_that_only_looks_like_a_flag_is_untouched() -> None:
    assert normalise_flags(["--labels", "--not-a flag"]) == ["--labels", "--not-a flag"]


def test_nothing_changes_after_a_bare_double_dash() -> None:
    assert normalise_flags(["--a-b", "--", "--c-d"]) == ["--a_b", "--", "--c-d"]
