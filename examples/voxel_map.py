"""Fuse pixel embeddings of posed RGB-D frames into a voxel map, and ask it for words; here, of a synthetic room.

Writes map.npz (cubes, embeddings), map.png and answers.json. docs/robotics.md shows how to map your own frames.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import synthetic_room as synthetic
from lseg_utils.cli import Parser
from lseg_utils.errors import raise_all, run_script
from lseg_utils.files import unwritable, write_aside
from lseg_utils.label_list import split_labels
from lseg_utils.results import text_table, write_json
from miniature.names import LABELS
from modules.weights_file import check_weights_file


class VoxelMap:
    """The sum of the embeddings of every cube of ``side`` metres that was seen. M cubes, C dimensions."""

    def __init__(self, side: float = 0.05) -> None:
        self.side, self._row_of = side, dict[tuple[int, ...], int]()
        self.sums, self.colours, self.counts = np.zeros((0, 0), np.float32), np.zeros((0, 3)), np.zeros(0)

    def add(
        self, image: np.ndarray, depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, embedding: np.ndarray
    ) -> None:
        """Add a frame: uint8 (H, W, 3), metres (H, W; 0: unknown), camera to world (4, 4), (3, 3), (H, W, C)."""
        ys, xs = np.nonzero(np.isfinite(depth) & (depth > 0))
        rays = np.stack([xs, ys, np.ones_like(xs)], 1) @ np.linalg.inv(intrinsics).T  # z is 1, x right, y down
        points = rays * depth[ys, xs, None] @ pose[:3, :3].T + pose[:3, 3]
        cubes, cube_of = np.unique(np.rint(points / self.side).astype(int), axis=0, return_inverse=True)
        rows = np.array([self._row_of.setdefault(tuple(cube), len(self._row_of)) for cube in cubes.tolist()], int)
        new = len(self._row_of) - len(self.counts)
        dimensions = embedding.shape[2]
        self.sums = np.concatenate([self.sums.reshape(-1, dimensions), np.zeros((new, dimensions), np.float32)])
        self.colours = np.concatenate([self.colours, np.zeros((new, 3))])
        self.counts = np.concatenate([self.counts, np.zeros(new)])
        for total, values in ((self.sums, embedding[ys, xs]), (self.colours, image[ys, xs]), (self.counts, 1)):
            np.add.at(total, rows[cube_of.ravel()], values)

    @property
    def centres(self) -> np.ndarray:
        """The middle of every cube in metres, (M, 3)."""
        return np.array(list(self._row_of)).reshape(-1, 3) * self.side

    def similarity(self, text: np.ndarray) -> np.ndarray:
        """Cosines of all cubes with the unit vectors of N texts (N, C): (M, N)."""
        return self.sums @ text.T / np.maximum(np.linalg.norm(self.sums, axis=1, keepdims=True), 1e-12)

    def find(self, words: Sequence[str], cosines: np.ndarray, radius: float = 0.5) -> list[dict]:
        """Where each word is: of the cubes for which it is the best, those around the one with the largest cosine."""
        best, answers = cosines.argmax(1), []
        for number, word in enumerate(words):
            own = np.flatnonzero(best == number)
            place, cosine = None, None
            if len(own):
                top = own[cosines[own, number].argmax()]
                middle = self.centres[top]
                for _ in range(5):  # mean shift: from its most certain cube to the middle of the thing
                    near = np.linalg.norm(self.centres[own] - middle, axis=1) < radius
                    middle = self.centres[own[near]].mean(0)
                place, cosine = middle.round(2).tolist(), round(float(cosines[top, number]), 3)
            answers.append({"word": word, "cubes": len(own), "place": place, "cosine": cosine})
        return answers

    def save(self, path: Path) -> None:
        """Arrays by name, as .npz or, with VLMaps' names, as .h5: embeddings are unit vectors in float16 or float32."""
        unit = self.sums / np.maximum(np.linalg.norm(self.sums, axis=1, keepdims=True), 1e-12)
        colours = self.colours / self.counts[:, None]
        with write_aside(path) as aside:
            if path.suffix != ".h5":
                parts = {"centres": self.centres, "embeddings": unit.astype("f2"), "colours": colours}
                np.savez(aside, **parts, counts=self.counts)
                return
            import h5py

            cubes = np.array(list(self._row_of), int).reshape(-1, 3)
            parts = {"grid_feat": unit.astype("f4"), "grid_pos": cubes, "grid_rgb": colours.astype("u1")}
            with h5py.File(aside, "w") as file:
                for name, values in {**parts, "weight": self.counts.astype("f4")}.items():
                    file[name] = values
                file.attrs["side"] = self.side


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--weights", required=True, help="use this checkpoint, such as the quickstart's")
    parser.add_argument("--words", help="look for these words, separated by commas; default: everything in the room")
    parser.add_argument("--others", help="let these words compete with them; default: the textures of the room")
    parser.add_argument("--frames", type=int, default=24, help="look at this many frames in one turn")
    parser.add_argument("--output_dir", type=Path, default=Path("voxel_map"), help="write to this folder")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Map the room, ask for the words, write everything."""
    options = build_parser().parse(argv)
    problems = [text for text in [unwritable(options.output_dir, "--output_dir")] if text]
    (weights,) = raise_all(problems, lambda: check_weights_file(options.weights))
    from examples.room_picture import map_picture
    from modules.predictor import LSegPredictor

    predictor, room, truth = LSegPredictor.from_checkpoint(weights), VoxelMap(), VoxelMap()
    for image, depth, pose, labels in synthetic.frames(options.frames):
        embedding = predictor.embed(image).cpu().numpy()  # (H, W, C) unit vectors
        room.add(image, depth, pose, synthetic.INTRINSICS, embedding)
        truth.add(image, depth, pose, synthetic.INTRINSICS, np.eye(len(LABELS))[labels])
    room.save(options.output_dir / "map.npz")

    words = split_labels(options.words) if options.words else synthetic.words()
    others = split_labels(options.others) if options.others else synthetic.textures()
    asked = list(dict.fromkeys([*words, *others]))
    cosines = room.similarity(predictor.encode_text(asked).cpu().numpy())
    answers = room.find(words, cosines)
    rows = [(one["word"], one["cubes"], str(one["place"] or "not found"), str(one["cosine"] or "")) for one in answers]
    print(text_table(("word", "cubes", "place (x, y, z in metres)", "cosine"), rows))
    right = [asked[best] == LABELS[true] for best, true in zip(cosines.argmax(1), truth.sums.argmax(1))]
    share = {"right": float(np.mean(right))} if set(synthetic.words()) <= set(asked) else {}  # with all words alone
    write_json(options.output_dir / "answers.json", {"cubes": len(right), **share, "answers": answers})
    map_picture(room, asked, cosines, words).save(options.output_dir / "map.png")
    share_text = f", {share['right']:.1%} with the right word" if share else ""
    print(f"{len(right)} cubes{share_text}; see {options.output_dir}")


if __name__ == "__main__":
    run_script(main)
