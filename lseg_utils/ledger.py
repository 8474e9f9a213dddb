"""What a long run has finished, kept on disk line by line, so that the same run can resume after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError

MAX_SHOWN = 60  # characters of a value in a message


class Ledger:
    """A file of JSON lines: a header, then one record for each finished piece of work.

    Args:
        path: the file; it and its folder are made when the first record is appended.
        header: everything that the records depend on, in plain types.

    ``records``: what earlier runs appended. A last line that a kill cut off does not count, and is removed before
    another one is appended. Raises ``InputError``, listing the differences, if the file has another header.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.header = path, json.loads(json.dumps(header))
        lines: list[Any] = []
        self._end = 0  # bytes up to the first line that is cut off or damaged
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                if not line.endswith(b"\n"):
                    break
                lines.append(json.loads(line))
            except (ValueError, RecursionError):
                break
            self._end += len(line)
        earlier = lines[0] if lines and isinstance(lines[0], dict) else {}
        if lines and (unlike := differences(earlier, self.header)):
            raise InputError("\n".join([f"{path} belongs to a run with other settings:", *unlike]))
        self.records: list[Any] = lines[1:]
        self._opened = False

    def append(self, *records: Any) -> None:
        """Add records; they survive a kill as soon as this returns."""
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        if not self._opened:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(self._end)
            if not self._end:
                lines.insert(0, json.dumps(self.header, ensure_ascii=False))
            self._opened = True
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
        self.records += records


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each setting in which an earlier run differs from this one."""

    def short(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."

    return [
        f"  {name}: {short(earlier.get(name))} there, {short(now.get(name))} now"
        for name in {**now, **earlier}
        if earlier.get(name) != now.get(name)
    ]
