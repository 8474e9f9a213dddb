"""Download ADE20K (scene parsing challenge 2016) to the data folder, or link a copy that is already on this machine.

The script can be interrupted and rerun: it skips what is complete and resumes or redoes the rest.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import DEFAULT_ROOT
from data.pairs import find_pairs
from lseg_utils.cli import Parser
from lseg_utils.download import download, part_of
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import check_free_space
from lseg_utils.unpack import missing_members, unpack


@dataclass(frozen=True)
class Part:
    """A split of an archive: its folders, relative to the archive's own, and its number of images (with masks)."""

    images: str
    masks: str | None
    count: int | None  # None: unknown, at least 1


@dataclass(frozen=True)
class Archive:
    """A download and the folder it unpacks to; sizes in bytes, rounded up, for the check of free space."""

    url: str
    sha1: str
    folder: str
    archive_bytes: int
    unpacked_bytes: int
    parts: tuple[Part, ...]
    required: bool = True  # False: an existing copy may lack it

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


ARCHIVES = (
    Archive(
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        sha1="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
        folder="ADEChallengeData2016",
        archive_bytes=1_000_000_000,
        unpacked_bytes=1_100_000_000,
        parts=(
            Part("images/training", "annotations/training", 20_210),
            Part("images/validation", "annotations/validation", 2_000),
        ),
    ),
    Archive(
        url="http://data.csail.mit.edu/places/ADEchallenge/release_test.zip",
        sha1="e05747892219d10e9243933371a497e905a4860c",
        folder="release_test",
        archive_bytes=230_000_000,
        unpacked_bytes=250_000_000,
        parts=(Part("testing", None, None),),
        required=False,
    ),
)


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    place = "put the dataset into this folder"
    parser.add_argument("--data_path", "--target_dir", type=Path, default=DEFAULT_ROOT, help=place)
    parser.add_argument("--download_dir", type=Path, help="check and link this existing copy instead")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then link or download both archives."""
    args = build_parser().parse(argv)
    target = args.data_path.expanduser().absolute()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"cannot create {target} ({error.strerror}); choose another folder with --data_path"
        raise InputError(text) from error
    if not os.access(target, os.W_OK):
        raise InputError(f"no permission to write to {target}; choose another folder with --data_path")
    if args.download_dir:
        link_copy(args.download_dir.expanduser().absolute(), target)
    else:
        fetch_all(target)
    print(f"ADE20K is ready in {target}")


def fetch_all(target: Path) -> None:
    """Download, check and unpack those of ``ARCHIVES`` that are not complete in ``target``."""
    # What is complete is judged by its counts and, if the archive is there, by the archive's list.
    files = {archive: target / "downloads" / archive.file_name for archive in ARCHIVES}
    unfinished, space = [], 0
    for archive, file in files.items():
        wrong = what_is_wrong(archive, target / archive.folder)
        if not wrong and not (file.exists() and missing_members(file, target)):
            print(f"{target / archive.folder} is complete")
            continue
        unfinished.append(archive)
        part = part_of(file)
        to_download = archive.archive_bytes - (part.stat().st_size if part.exists() else 0)
        space += archive.unpacked_bytes + (0 if file.exists() else max(to_download, 0))
    check_free_space(target, space, "ADE20K")
    for number, archive in enumerate(unfinished, 1):
        file = files[archive]
        try:
            download(archive.url, file, archive.sha1)
        except InputError as error:  # offline users should have to go to another machine only once
            others = [other for other in unfinished[number:] if not files[other].exists()]
            also = "".join(f". Put this next to it: {other.url} (SHA-1 {other.sha1})" for other in others)
            raise InputError(f"{error}{also}") from error
        for replaced in unpack(file, target):
            print(f"an incomplete or foreign folder was renamed to {replaced}; remove it if you do not need it")
        wrong = what_is_wrong(archive, target / archive.folder)
        if wrong:
            raise InputError(f"{file} was unpacked but has unexpected content: {'; '.join(wrong)}")
        print(f"{target / archive.folder} is complete; {file} is no longer needed")


def link_copy(source: Path, target: Path) -> None:
    """Link the folders of a checked copy into ``target``.

    ``source`` contains ``ADEChallengeData2016`` or is that folder itself. Nothing is linked unless everything that
    is required is there and complete.
    """
    if not source.is_dir():
        raise InputError(f"there is no folder {source}; --download_dir must be the folder of an existing copy")
    links, problems = {}, []
    for archive in ARCHIVES:
        wrong = {folder: what_is_wrong(archive, folder) for folder in (source / archive.folder, source)}
        found = next((folder for folder, texts in wrong.items() if not texts), None)
        place = target / archive.folder
        if found and place.is_dir() and place.resolve() == found.resolve():
            print(f"{place} already is that copy")
        elif found and place.exists() and not place.is_symlink():
            problems.append(f"{place} exists and is not a link; remove or rename it first")
        elif found:
            links[place] = found.resolve()
        elif archive.required:
            nearest = source / archive.folder if (source / archive.folder).is_dir() else source
            problems.append(f"{source} is not a complete copy of {archive.folder}: {'; '.join(wrong[nearest])}")
        else:
            print(f"{source} has no {archive.folder}; it is needed only to segment the official test images")
    if problems:
        raise InputError(". ".join(problems))
    for place, found in links.items():
        aside = place.with_name(f".{place.name}.link")
        aside.unlink(missing_ok=True)
        aside.symlink_to(found, target_is_directory=True)
        os.replace(aside, place)
        print(f"{place} -> {found}")


def what_is_wrong(archive: Archive, folder: Path) -> list[str]:
    """A sentence for each incomplete split in ``folder``: an image lacks its mask, or the count differs."""
    texts = []
    for part in archive.parts:
        pairs, problems = find_pairs(folder / part.images, folder / part.masks if part.masks else None)
        texts += problems
        if not problems and part.count not in (None, len(pairs)):
            texts.append(f"{folder / part.images} has {len(pairs):,} images with masks instead of {part.count:,}")
    return texts


if __name__ == "__main__":
    run_script(main)
