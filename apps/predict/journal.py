"""What a run over many files has finished, on disk, so that the same command resumes it and no other is mixed in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apps.predict.sources import Source
from lseg_utils.errors import InputError
from lseg_utils.files import file_state
from lseg_utils.ledger import Ledger, differences
from lseg_utils.results import write_json

RUN_FILE, LEDGER_FILE = "run.json", "ledger.jsonl"
OPTIONAL = "embeddings"  # a setting that a later run may add or leave out

Record = dict[str, Any]
NEEDED = {"name": str, "source": str, "parts": list}  # of every record


class Journal:
    """The settings of a run in ``folder``/run.json, and a ledger with one record per source.

    Args:
        folder: contains all results.
        settings: everything that results depend on, in plain types.
        about: further facts for run.json, on which nothing depends.
        forget: None to resume what is there. Otherwise everything is done again, with other settings if need be, and
            this function deletes whatever else an earlier run would be resumed from.

    Raises ``InputError`` if ``folder`` contains results of other settings, or of another program.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        forget: Callable[[], None] | None = None,
    ) -> None:
        run_file, ledger_file = folder / RUN_FILE, folder / LEDGER_FILE
        settings = json.loads(json.dumps(settings))
        earlier = read_run(folder)  # also before deleting: never delete what is not ours
        if forget is not None:  # before the new settings are written: a kill must not leave old results under them
            ledger_file.unlink(missing_ok=True)
            forget()
        elif earlier is not None:
            before, optional = earlier["settings"], settings[OPTIONAL] or earlier["settings"][OPTIONAL]
            if None in (before[OPTIONAL], settings[OPTIONAL]):
                before[OPTIONAL] = settings[OPTIONAL] = optional
            if unlike := differences(before, settings):
                raise InputError(
                    f"{folder} contains results of other settings:\n" + "\n".join(unlike) + "\n"
                    "choose another --output_dir, or do everything again with --overwrite"
                )
        write_json(run_file, {"settings": settings, **about})
        self._ledger = Ledger(ledger_file, {"settings": RUN_FILE})
        self._records: dict[str, Record] = {}
        for record in self._ledger.records:
            if not isinstance(record, dict) or not all(
                isinstance(record.get(key), kind) for key, kind in NEEDED.items()
            ):
                raise InputError(f"{ledger_file} is damaged: it contains {str(record)[:60]}; use --overwrite")
            self._records[record["name"]] = record

    def finished(self, source: Source, parts: frozenset[str]) -> Record | None:
        """The record of ``source`` if it is finished with all ``parts`` and the file is the same as then."""
        record = self._same_file(source)
        return record if record and record["parts"] and parts <= set(record["parts"]) else None

    def begin(self, source: Source) -> bool:
        """Note that work on a video begins; returns whether frames that are already there are its own."""
        if self._same_file(source):
            return True
        self.add(source, frozenset())
        return False

    def add(self, source: Source, parts: frozenset[str], **facts: Any) -> Record:
        """Note that ``source`` is finished with ``parts``; parts that an earlier run made of the same file stay."""
        earlier = self._same_file(source) or {}
        record = {
            **earlier,
            "name": source.name,
            "source": str(source.path),
            "file": identity(source.path),
            "parts": sorted(parts.union(earlier.get("parts", ()))),
            **facts,
        }
        self._records[source.name] = record
        self._ledger.append(record)
        return record

    def records(self) -> list[Record]:
        """The records of all sources, also of earlier runs, in the order of names."""
        return [self._records[name] for name in sorted(self._records)]

    def _same_file(self, source: Source) -> Record | None:
        """The record of this very file: the same place (files of two folders may be alike), size and time."""
        record = self._records.get(source.name)
        if record is None or os.path.realpath(record["source"]) != os.path.realpath(source.path):
            return None
        return record if record["file"] == identity(source.path) else None


def foreign_files(folder: Path, flag: str) -> str:
    """Why the results of a run cannot go to ``folder``, or "": it contains files, but no run of this script.

    Hidden files do not count. ``flag``: the option that names the folder.
    """
    if (folder / RUN_FILE).exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return ""
    return f"{folder} contains files, but no earlier run of this script ({RUN_FILE}); choose a new or empty {flag}"


def identity(path: Path) -> list[str | int] | None:
    """What tells a file from a later one of the same name: size and time of change. None for a camera."""
    return file_state(path)[1:] if path.exists() else None


def read_run(folder: Path) -> dict[str, Any] | None:
    """What run.json in ``folder`` contains, None without one; ``InputError`` for another program's file."""
    run_file = folder / RUN_FILE
    if not run_file.exists():
        return None
    try:
        run = json.loads(run_file.read_text(encoding="utf-8"))
        run["settings"].setdefault(OPTIONAL, None)
        return run
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{run_file} was not written by this script; choose another --output_dir") from error
