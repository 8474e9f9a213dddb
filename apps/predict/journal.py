"""What a run over many files has finished, on disk: a killed one can be taken up and is not mixed with another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.predict.embedding_store import groups_of
from apps.predict.sources import Source
from lseg_utils.errors import InputError
from lseg_utils.files import write_aside
from lseg_utils.results import write_json
from modules.checkpoints import git_state

RUN_FILE, JOURNAL_FILE = "run.json", "finished.jsonl"
OPTIONAL = "embeddings"  # a setting that a later run may add or leave out
SHOWN = 60  # characters of a setting's value in a message

Record = dict[str, Any]


class Journal:
    """One line per finished source in ``folder/finished.jsonl``; the settings of the run in ``folder/run.json``.

    ``settings``: everything that results depend on, in plain types. A last line that a kill cut off does not count.
    ``forget``: None to take up what is there; otherwise all is done again, also with other settings, and this deletes
    whatever else an earlier run goes on from.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], forget: Callable[[], None] | None = None) -> None:
        self.path = folder / JOURNAL_FILE
        self._records: dict[str, Record] = {}
        settings = json.loads(json.dumps(settings))
        run_file = folder / RUN_FILE
        earlier = _read_settings(run_file) if run_file.exists() else None  # never delete what is not ours
        if forget is not None:  # before the new settings are written: a kill must not leave old parts under them
            self.path.unlink(missing_ok=True)
            forget()
        elif earlier is not None:
            _refuse_other_settings(folder, earlier, settings)
            settings[OPTIONAL] = settings[OPTIONAL] or earlier[OPTIONAL]
            self._records = self._read()
        write_json(run_file, {"settings": settings, "git": git_state()})

    def finished(self, source: Source, parts: set[str]) -> Record | None:
        """What was noted of ``source`` if it is done with all ``parts`` and the file is the same as then.

        The same file is one of the same place, size and time: frames of two folders can be alike but for the place.
        """
        record = self._records.get(source.name)
        if record is None or Path(record["source"]).resolve() != source.path.resolve():
            return None
        same = record["file"] == identity(source.path) and parts <= set(record["parts"])
        return record if same else None

    def clashes(self, sources: Sequence[Source]) -> list[str]:
        """What of ``sources`` cannot be written beside what earlier runs made: frames of "clip" are "clip/000000"."""
        members = {group: name for name in self._records for group in groups_of(name)}
        problems = []
        for source in sources:
            videos = [name for name in groups_of(source.name) if "frames" in self._records.get(name, {})]
            other = videos[0] if videos else members.get(source.name) if source.kind != "picture" else None
            if other:
                problems.append(
                    f"{source.path}: its results ({source.name}) would be mixed with those that an earlier run made of "
                    f"{self._records[other]['source']} ({other}); name another --output_dir"
                )
        return problems

    def records(self) -> list[Record]:
        """Everything that was noted, also by earlier runs, in order of names."""
        return [self._records[name] for name in sorted(self._records)]

    def add(self, source: Source, parts: set[str], **facts: Any) -> Record:
        """Note that ``source`` is done, ``parts`` saying with which results; what an earlier run made of it stays."""
        file = identity(source.path)
        earlier = self._records.get(source.name, {})
        if earlier.get("file") != file:
            earlier = {}
        record = {
            **earlier,
            "name": source.name,
            "source": str(source.path),
            "file": file,
            "parts": sorted(parts.union(earlier.get("parts", ()))),
            **facts,
        }
        self._records[source.name] = record
        with self.path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(record, ensure_ascii=False) + "\n")
        return record

    def _read(self) -> dict[str, Record]:
        if not self.path.exists():
            return {}
        *lines, rest = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        if rest:  # half a line: the next one must not be glued to it
            with write_aside(self.path) as aside:
                aside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return {record["name"]: record for record in map(json.loads, lines)}


def foreign_files(folder: Path, flag: str) -> str:
    """Why the results of a run cannot go to ``folder``, or "": it holds files, hidden ones not counted, but no run.

    ``flag``: the option that names it.
    """
    if (folder / RUN_FILE).exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return ""
    return f"{folder} holds files, but no earlier run of this script ({RUN_FILE}); name a new or empty {flag}"


def identity(path: Path) -> list[int] | None:
    """What tells a file from a later one of the same name: size and time of change. None for a camera."""
    if not path.exists():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_settings(run_file: Path) -> dict[str, Any]:
    try:
        return json.loads(run_file.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run_file} was not written by this script; name another --output_dir") from error


def _refuse_other_settings(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """``InputError`` that names every setting in which the results in ``folder`` differ from those asked for."""
    unlike = [
        f"  {name}: {_short(earlier.get(name))} there, {_short(value)} now"
        for name, value in settings.items()
        if earlier.get(name) != value and not (name == OPTIONAL and None in (earlier.get(name), value))
    ]
    if unlike:
        raise InputError(
            f"{folder} holds results of other settings:\n" + "\n".join(unlike) + "\n"
            "name another --output_dir, or do everything again with --overwrite"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
