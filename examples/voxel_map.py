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
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.files import unwritable, write_aside
from lseg_utils.label_list import word_list
from lseg_utils.results import text_table, write_json
from miniature.names import LABELS
from modules.weights_file import check_weights_file


def check_frame(
    image: np.ndarray, depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, embedding: np.ndarray
) -> None:
    """``InputError`` with everything that is wrong with a frame (shapes and units: see ``VoxelMap.add``)."""
    problems = []
    sizes = {"picture": image.shape[:2], "depth": depth.shape, "embedding": embedding.shape[:2]}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in sizes.items())
        problems.append(
            f"height x width must be the same: {found}. Resize the picture to the depth's size before predictor.embed"
        )
    if not np.issubdtype(depth.dtype, np.floating):
        problems.append(f"depth is {depth.dtype}, but must be metres as floats; divide millimetres by 1000.0")
    for name, matrix, shape in (("pose", pose, (4, 4)), ("intrinsics", intrinsics, (3, 3))):
        if np.shape(matrix) != shape:
            problems.append(f"{name} must be a matrix {shape}, not {np.shape(matrix)}")
        elif not np.isfinite(matrix).all():
            problems.append(f"{name} contains NaN or infinity; leave this frame out")
    raise_all(problems)


class VoxelMap:
    """The sum of the embeddings of every cube of ``side`` metres that was seen. M cubes, C dimensions."""

    def __init__(self, side: float = 0.05) -> None:
        self.side, self._row_of = side, dict[tuple[int, ...], int]()
        self.sums, self.colours, self.counts = np.zeros((0, 0), np.float32), np.zeros((0, 3)), np.zeros(0)

    def add(
        self, image: np.ndarray, depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, embedding: np.ndarray
    ) -> None:
        """Add a frame: uint8 (H, W, 3), metres (H, W; 0: unknown), camera to world (4, 4), (3, 3), (H, W, C).

        ``InputError`` for arrays that do not fit together or that are not what they should be.
        """
        check_frame(image, depth, pose, intrinsics, embedding)
        ys, xs = np.nonzero(np.isfinite(depth) & (depth > 0))
        rays = np.stack([xs, ys, np.ones_like(xs)], 1) @ np.linalg.inv(intrinsics).T  # z is 1, x right, y down
        points = rays * depth[ys, xs, None] @ pose[:3, :3].T + pose[:3, 3]
        self.add_points(points, image[ys, xs], embedding[ys, xs])

    def add_points(self, points: np.ndarray, colours: np.ndarray, embeddings: np.ndarray) -> None:
        """Add points: metres in the world (P, 3), RGB in 0..255 (P, 3), unit vectors (P, C)."""
        dimensions = embeddings.shape[1]
        if len(self.counts) and dimensions != self.sums.shape[1]:
            raise InputError(
                f"embeddings have {dimensions} dimensions, the map has {self.sums.shape[1]}; use one network"
            )
        cubes, cube_of = np.unique(np.rint(points / self.side).astype(int), axis=0, return_inverse=True)
        rows = np.array([self._row_of.setdefault(tuple(cube), len(self._row_of)) for cube in cubes.tolist()], int)
        new = len(self._row_of) - len(self.counts)
        self.sums = np.concatenate([self.sums.reshape(-1, dimensions), np.zeros((new, dimensions), np.float32)])
        self.colours = np.concatenate([self.colours, np.zeros((new, 3))])
        self.counts = np.concatenate([self.counts, np.zeros(new)])
        for total, values in ((self.sums, embeddings), (self.colours, colours), (self.counts, 1)):
            np.add.at(total, rows[cube_of.ravel()], values)

    @property
    def centres(self) -> np.ndarray:
        """The middle of every cube in metres, (M, 3)."""
        return np.array(list(self._row_of)).reshape(-1, 3) * self.side

    def similarity(self, text: np.ndarray) -> np.ndarray:
        """Cosines of all cubes with the unit vectors of N texts (N, C): (M, N)."""
        text = np.asarray(text)
        if not len(self.counts):
            raise InputError("the map is empty; add a frame with depth first")
        if text.shape[1:] != self.sums.shape[1:]:
            raise InputError(
                f"texts are {text.shape}, the map's embeddings have {self.sums.shape[1]} dimensions; encode the texts "
                "with the network that made the map"
            )
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

    @classmethod
    def load(cls, path: str | Path) -> VoxelMap:
        """A map from a ``.npz`` file of ``save``, to search in it. The file does not keep the lengths of the sums."""
        with np.load(path) as file:
            room = cls(float(file["side"]))
            cubes, room.counts = np.rint(file["centres"] / room.side).astype(int), file["counts"]
            room.sums = file["embeddings"].astype("f4") * room.counts[:, None].astype("f4")
            room.colours = file["colours"] * room.counts[:, None]
        room._row_of = {tuple(cube): row for row, cube in enumerate(cubes.tolist())}
        return room

    def save(self, path: str | Path) -> None:
        """Arrays by name, as .npz or, with VLMaps' names, as .h5: embeddings are unit vectors in float16 or float32."""
        path = Path(path)
        unit = self.sums / np.maximum(np.linalg.norm(self.sums, axis=1, keepdims=True), 1e-12)
        colours = self.colours / self.counts[:, None]
        with write_aside(path) as aside:
            if path.suffix != ".h5":
                parts = {"centres": self.centres, "embeddings": unit.astype("f2"), "colours": colours}
                np.savez(aside, **parts, counts=self.counts, side=self.side)
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
    parser.add_argument(
        "--words", type=word_list, help="look for these words, separated by commas; default: everything in the room"
    )
    parser.add_argument(
        "--others", type=word_list, help="let these words compete with them; default: the textures of the room"
    )
    parser.add_argument("--frames", type=int, default=24, help="look at this many frames in one turn")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/voxel_map"), help="write to this folder")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Map the room, ask for the words, write everything."""
    options = build_parser().parse(argv)
    problems = [text for text in [unwritable(options.output_dir, "--output_dir")] if text]
    if options.frames < 1:
        problems.append(f"--frames {options.frames}: give at least 1")
    (weights,) = raise_all(problems, lambda: check_weights_file(options.weights))
    from examples.room_picture import map_picture
    from lseg_utils.progress import progress_bar
    from modules.predictor import LSegPredictor

    predictor, room, truth = LSegPredictor.from_checkpoint(weights), VoxelMap(), VoxelMap()
    seen = synthetic.frames(options.frames)
    frames = progress_bar(seen, desc="mapping", total=options.frames, unit="frame")
    for image, depth, pose, labels in frames:
        embedding = predictor.embed(image).cpu().numpy()  # (H, W, C) unit vectors
        room.add(image, depth, pose, synthetic.INTRINSICS, embedding)
        truth.add(image, depth, pose, synthetic.INTRINSICS, np.eye(len(LABELS))[labels])
    room.save(options.output_dir / "map.npz")

    words, others = options.words or synthetic.words(), options.others or synthetic.textures()
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
