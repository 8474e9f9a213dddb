"""Label files: the names of the values of a mask, in mask order."""

from __future__ import annotations

import csv
import os
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from lseg_utils.errors import InputError, few
from lseg_utils.label_list import duplicates, split_labels

LABEL_FILES = Path(__file__).resolve().parent / "label_files"

# CLIP reads at most 75 word pieces; a line much longer than they could fill does not belong to a label file.
MAX_LABEL_LENGTH = 300


def read_label_file(path: str | Path) -> tuple[list[str], list[str]]:
    """Read the labels of ``path`` and find what is doubtful about them.

    Two formats: one label per line (blank lines and lines that start with ``#`` do not count), or the official
    ``objectInfo150.txt`` of ADE20K, a table whose last column contains ``;``-separated names of which the piece before
    the first ``;`` is taken, as the official code does.

    Returns ``(labels, doubts)``: the labels in file order, with single spaces, and a sentence per label that occurs
    twice (in whatever case). Raises ``InputError`` for a file that is missing, not text, empty, or has control
    characters or lines over 300 characters.
    """
    path = Path(path)
    lines = _text_lines(path)
    if lines and lines[0].replace(" ", "").lower().startswith("idx,"):
        labels = [row[-1].split(";")[0].strip() for row in csv.reader(lines[1:]) if row]
    else:
        labels = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    labels = [" ".join(label.split()) for label in labels]  # no tabs or non-breaking spaces
    labels = [label for label in labels if label]
    odd = [f"label {n}" for n, label in enumerate(labels) if any(unicodedata.category(one) == "Cc" for one in label)]
    if odd:
        raise InputError(f"{path}: control characters in {few(odd)}, counted from 0; delete them and save it as UTF-8")
    if not labels:
        raise InputError(f"{path} contains no label; write one label per line, in the order of the mask values")
    too_long = [f"label {number}" for number, label in enumerate(labels) if len(label) > MAX_LABEL_LENGTH]
    if too_long:
        raise InputError(
            f"{path}: over {MAX_LABEL_LENGTH} characters in {few(too_long)}, counted from 0; "
            f"a label file has one short label per line"
        )
    return labels, [
        f"{path}: {label!r} is label {' and '.join(map(str, positions))}, counted from 0; "
        "only the first can be predicted"
        for label, positions in duplicates(labels).items()
    ]


def labels_from(text: str | Path) -> list[str]:
    """The labels of a command line's ``--labels``: "cat, grass, other" (see ``split_labels``), or a file.

    A file is what ``read_label_file`` takes. Doubts are shown as warnings. Raises ``InputError`` for a list
    without labels, and as that function.
    """
    path, labels = Path(text), split_labels(str(text))
    if os.path.isfile(path) or (len(labels) == 1 and _looks_like_a_file(path)):  # isfile: any length of text
        labels, doubts = read_label_file(path)
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        return labels
    if not labels:
        raise InputError(f'--labels {str(text)!r} contains no label; write "cat, grass, other", or give a file')
    if len(labels) == 1:
        warnings.warn(
            f"{labels[0][:40]!r} is the only label, so every pixel gets it (there is no file of that name); add more, "
            "such as other",
            stacklevel=2,
        )
    return labels


def _looks_like_a_file(path: Path) -> bool:
    """Whether a text that is neither a file nor a list was meant as a file: it has a suffix or an existing folder."""
    return path.suffix in (".txt", ".csv") or (path.name != str(path) and os.path.isdir(path.parent))


def resolve_labels(dataset: str, label_src: str, sources: Mapping[str, Path] | Sequence[str], count: int) -> list[str]:
    """The labels of ``dataset`` that ``label_src`` stands for: a key of ``sources``, or a file of ``count`` labels.

    ``sources``: list -> file; mere names are lists that the caller has looked up already. Doubts about a user's own
    file are shown as warnings; the faults of the lists in ``sources`` are documented. Raises ``InputError`` for an
    unknown source and for a file with another number of labels.
    """
    known = isinstance(sources, Mapping) and label_src in sources
    path = sources[label_src] if known else Path(label_src)
    if not known and not path.is_file():
        raise InputError(
            f"label_src {label_src!r} is neither one of {', '.join(sources)} nor a file; "
            f"give one of these or a file with the {count} labels of {dataset}, one per line"
        )
    labels, doubts = read_label_file(path)
    if len(labels) != count:
        raise InputError(
            f"{path} contains {len(labels)} labels, but the masks of {dataset} have {count} values; "
            f"the file needs exactly {count} lines, in the order of the values"
        )
    if not known:
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
    return labels


def _text_lines(path: Path) -> list[str]:
    try:
        # Windows editors write a byte order mark; files that were joined contain several.
        return path.read_text(encoding="utf-8").replace("\ufeff", "").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file ({error.reason}); save the labels as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read the label file {path}: {error.strerror}; check its name and access") from error
