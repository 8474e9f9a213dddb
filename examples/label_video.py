"""Find out when words occur in a video: each word's share of the picture over time.

Without a video, it uses a drawn room. Writes areas.csv (a row for each frame that was looked at) and timeline.png.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import synthetic_room as synthetic
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import unwritable
from lseg_utils.heatmaps import HeatScale, heat_map
from lseg_utils.label_list import word_list
from lseg_utils.pictures import save_picture, sheet, stack
from lseg_utils.results import text_table, write_csv
from modules.weights_file import check_weights_file

THUMBNAILS = 6
MOST = 0.1  # larger shares look the same in the picture


def read_video(path: Path, every: float) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, uint8 (H, W, 3) RGB) of one frame of the video per interval of ``every`` seconds."""
    import cv2

    video = cv2.VideoCapture(str(path))
    rate, number, due = video.get(cv2.CAP_PROP_FPS) or 25.0, 0, 0.0
    while video.grab():
        if number / rate >= due:
            yield number / rate, cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
            due += every
        number += 1
    if not number:
        raise InputError(f"{path} is not a video that OpenCV can read; convert it, for example to .mp4")


def timeline(
    times: Sequence[float], areas: np.ndarray, labels: Sequence[str], pictures: list[np.ndarray]
) -> Image.Image:
    """Some frames, and below them the shares (T, N) of N labels at T times."""
    shown = np.linspace(0, len(times) - 1, min(THUMBNAILS, len(times))).round().astype(int)
    top = sheet([[pictures[index] for index in shown]], [f"{times[index]:.1f} s" for index in shown], cell=(120, 120))
    most = min(max(float(areas.max()), 0.01), MOST)
    scale = HeatScale(0, most, ticks=(0, most), form="{:.0%}".format)
    return stack(
        [top, heat_map(areas.T.clip(0, most), labels, [f"{time:.1f}" for time in times], scale, cell=18, text_size=13)]
    )


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__ or "")
    parser.add_argument("video", nargs="?", type=Path, help="read this video; default: a camera turns in a drawn room")
    parser.add_argument("--weights", required=True, help="use this checkpoint, such as the quickstart's")
    parser.add_argument(
        "--words",
        type=word_list,
        help="look for these words, separated by commas; needed for a video; default: everything in the drawn room",
    )
    parser.add_argument("--every", type=float, default=1.0, help="look at a frame at this interval, in seconds")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/labelled_video"), help="write to this folder")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Look at the frames, write the table and the picture."""
    options = build_parser().parse(argv)
    problems = [text for text in [unwritable(options.output_dir, "--output_dir")] if text]
    if options.video and not options.video.is_file():
        problems.append(f"there is no video {options.video}")
    if options.video and not options.words:
        problems.append("give the words to look for: --words 'cat, grass, other'")
    (weights,) = raise_all(problems, lambda: check_weights_file(options.weights))
    from lseg_utils.progress import progress_bar
    from modules.predictor import LSegPredictor

    labels = options.words or synthetic.words()
    if options.video:
        frames = read_video(options.video, options.every)
    else:
        frames = ((float(number), frame[0]) for number, frame in enumerate(synthetic.frames()))
    predictor, times, shares, pictures = LSegPredictor.from_checkpoint(weights), [], [], []
    for time, picture in progress_bar(frames, desc="labelling", unit="frame"):
        areas = predictor.segment(picture, labels).areas()
        times.append(round(time, 3))
        shares.append([areas.get(label, 0.0) for label in labels])
        pictures.append(np.asarray(Image.fromarray(picture).resize((120, 120))))
    areas = np.array(shares)  # (T, N)
    write_csv(
        options.output_dir / "areas.csv", ("seconds", *labels), [(t, *row) for t, row in zip(times, areas.tolist())]
    )
    save_picture(options.output_dir / "timeline.png", timeline(times, areas, labels, pictures))
    best = areas.argmax(0)
    rows = [(label, f"{areas[at, n]:.1%}", f"{times[at]:.1f}") for n, (label, at) in enumerate(zip(labels, best))]
    print(text_table(("word", "largest share", "at second"), rows))
    print(f"{len(times)} frames; see {options.output_dir}")


if __name__ == "__main__":
    run_script(main)
