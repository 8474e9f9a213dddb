"""Show what the quickstart measured: a table, and pictures of the predictions with several label lists."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import check_dataset
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.files import REPOSITORY, write_aside
from lseg_utils.results import text_table, write_json
from miniature.results import TABLE_NOTE, read_results, table_cells, table_rows


@dataclass(frozen=True)
class Places:
    """Where ``quickstart.sh`` writes the files of one seed, below its ``--folder``."""

    folder: Path
    seed: int
    short: bool

    def _named(self, name: str) -> Path:
        return self.folder / f"{name}{'_short' if self.short else ''}"

    @property
    def datasets(self) -> Path:
        return self._named(f"datasets_seed{self.seed}")

    @property
    def checkpoint(self) -> Path:
        return self._named("runs") / f"trained_seed{self.seed}" / "version_0" / "checkpoints" / "last.ckpt"

    @property
    def results(self) -> Path:
        return self._named(f"results/seed{self.seed}")

    @property
    def report(self) -> Path:
        return self._named(f"report_seed{self.seed}")

    @property
    def command(self) -> str:
        """The command that makes everything."""
        words = ["bash", "quickstart.sh", "--seed", str(self.seed), *(["--short"] if self.short else [])]
        if self.folder != REPOSITORY / "quickstart":
            words += ["--folder", str(self.folder)]
        return shlex.join(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Check that everything is there, write the report, print its table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        default=REPOSITORY / "quickstart",
        help="read the quickstart's results in this folder, its --folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="report on the quickstart with this --seed")
    parser.add_argument("--short", action="store_true", help="report on a quickstart that ran with --short")
    options = parser.parse(argv)
    places = Places(options.folder.resolve(), options.seed, options.short)

    results = check_all(places)
    rows = table_rows(results)
    table = f"{text_table(*table_cells(rows))}\n\n{TABLE_NOTE}"
    robustness = places.results / "robustness" / "table.txt"
    if robustness.is_file():
        page = robustness.with_name("report.html")
        table += f"\n\nThe same pictures with other label lists ({page}):\n\n{robustness.read_text('utf-8').strip()}"
    content = {"seed": places.seed, "short": places.short, "unit": "percent", "rows": rows}
    write_json(places.report / "results.json", content)
    with write_aside(places.report / "table.txt") as aside:
        aside.write_text(table + "\n", encoding="utf-8")
    from miniature.pictures import write_pictures  # torch, which neither --help nor the checks need

    write_pictures(places.report, places.checkpoint, places.datasets, places.seed, results)

    print(table)
    if places.short:
        print("This was a short run: it shows that everything runs, not that it learns.")
    pictures = ", ".join(f"{name}.png" for name in ("sheet", "relabel", "iou_map", "cosine"))
    print(f"\npictures: {pictures} in {places.report}\n{what_next(places.checkpoint)}")


def what_next(checkpoint: Path) -> str:
    """The trained network, and commands that use it."""
    weights = shlex.quote(str(checkpoint))
    return (
        f"trained network: {checkpoint}\n\nwhat to try next, after `source .venv/bin/activate`:\n"
        f'  python predict_lseg.py docs/sample.png --weights {weights} --labels "sea, ivory wedge, crimson hoop"\n'
        '  pip install "streamlit>=1.65"    # for the app\n'
        f"  streamlit run lseg_app.py -- --checkpoint {weights}\n"
        "  lseg_demo.ipynb, in any Jupyter\n"
        "This network only understands the miniature's shapes, colours and textures; README.md explains how to get "
        "others."
    )


def check_all(places: Places) -> dict[str, dict]:
    """The results of the tests; one ``InputError`` with everything that is missing or damaged."""
    results, problems = read_results(places.results)
    if not places.checkpoint.is_file():
        problems.append(f"{places.checkpoint}, the trained network, is missing")
    try:
        check_dataset("miniature", places.datasets, ["val"])
    except InputError as error:
        problems.append(str(error))
    if problems:
        problems.append(f"run `{places.command}`, which makes whatever is missing; then run this command again")
        raise InputError("\n".join(problems))
    return results


if __name__ == "__main__":
    run_script(main)
