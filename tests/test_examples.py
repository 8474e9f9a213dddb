"""The examples for robotics and video: they find in the drawn room what is there, and run from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from examples import label_video, ros_node, synthetic_room, voxel_map
from examples.ros_node import Segmenter, to_array, to_message
from examples.scan_folder import read_scan
from examples.voxel_map import VoxelMap
from lseg_utils.errors import InputError
from miniature.names import LABELS
from predict_script import tiny_weights, video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def test_the_drawn_room_is_where_depth_and_poses_say():
    """Pixels of two frames that show one place of the room have one label, and the walls are two metres away."""
    room, seen = VoxelMap(side=0.1), synthetic_room.frames(12)
    for image, depth, pose, labels in seen:
        assert image.shape == (128, 128, 3) and (labels[depth > 0] >= 0).all()
        room.add(image, depth, pose, synthetic_room.INTRINSICS, np.eye(len(LABELS))[labels])
    assert np.abs(room.centres).max() <= 2.3 and np.abs(room.centres[:, :2]).max() == pytest.approx(2.0)
    inside = room.sums.max(1) > 0.999 * room.sums.sum(1)  # cubes with one label only
    assert inside.mean() > 0.85 and room.counts.sum() == pytest.approx(room.sums.sum())
    answers = {one["word"]: one for one in room.find(LABELS, room.similarity(np.eye(len(LABELS))))}
    assert answers["yellow star"]["place"] == pytest.approx([2.0, -0.2, 0.8], abs=0.08)
    assert answers["white ring"]["place"] == pytest.approx([-2.0, -1.1, 0.9], abs=0.08)
    assert answers["blue star"] == {"word": "blue star", "cubes": 0, "place": None, "cosine": None}


def test_a_frame_lands_where_a_hand_calculation_puts_it(tmp_path):
    depth = np.array([[2.0, 0.0], [np.inf, 4.0]])  # two pixels are unknown
    pose = np.array([[0, 0, 1, 10], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1.0]])  # looks along the world's x
    intrinsics = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    room = VoxelMap(side=1.0)
    for _ in range(2):
        room.add(np.full((2, 2, 3), 7), depth, pose, intrinsics, np.arange(8.0).reshape(2, 2, 2))
    order = np.argsort(room.centres[:, 0])
    assert room.centres[order].tolist() == [[12, 20, 30], [14, 16, 26]]
    assert room.sums[order].tolist() == [[0, 2], [12, 14]] and room.counts.tolist() == [2, 2]
    assert room.similarity(np.array([[0.0, 1.0]]))[order[0]] == 1
    h5py = pytest.importorskip("h5py")
    room.save(tmp_path / "map.h5")
    with h5py.File(tmp_path / "map.h5") as file:
        assert file["grid_pos"][order[0]].tolist() == [12, 20, 30] and file["weight"][order[1]] == 2
        assert file["grid_rgb"][0].tolist() == [7, 7, 7] and file["grid_feat"][order[0]].tolist() == [0, 1]


def test_a_saved_map_can_be_searched(tmp_path):
    room = VoxelMap(side=0.5)
    room.add_points(np.array([[0, 0, 0], [1, 0, -0.5]]), np.full((2, 3), 9), np.eye(2))
    room.save(str(tmp_path / "map.npz"))
    again = VoxelMap.load(tmp_path / "map.npz")
    assert again.side == 0.5 and again.centres.tolist() == [[0, 0, 0], [1, 0, -0.5]]
    assert again.similarity(np.eye(2)).tolist() == np.eye(2).tolist() and (again.colours == 9).all()
    with pytest.raises(InputError, match="3 dimensions"):
        again.add_points(np.zeros((1, 3)), np.zeros((1, 3)), np.eye(3)[:1])
    with pytest.raises(InputError, match="2 dimensions"):
        again.similarity(np.eye(3))
    with pytest.raises(InputError, match="empty"):
        VoxelMap().similarity(np.eye(3))


def test_frames_that_do_not_fit_are_refused_with_every_reason():
    image, embedding = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 2))
    with pytest.raises(InputError) as caught:
        VoxelMap().add(image, np.ones((2, 3), np.uint16), np.full((4, 4), np.nan), np.eye(4), embedding)
    for fact in ("depth 2 x 3", "uint16", "pose contains NaN", "intrinsics must be a matrix (3, 3), not (4, 4)"):
        assert fact in str(caught.value)


def test_a_folder_of_frames_is_read(tmp_path):
    """Three frames, of which one has no finite pose; the pictures are twice as large as the depth."""
    for kind in ("color", "depth", "pose", "intrinsic"):
        (tmp_path / kind).mkdir()
    for name, translation in (("0", 1.0), ("1", -np.inf), ("2", 3.0)):
        Image.new("RGB", (8, 4), (9, 8, 7)).save(tmp_path / "color" / f"{name}.png")
        Image.fromarray(np.full((2, 4), 1500, np.uint16)).save(tmp_path / "depth" / f"{name}.png")
        np.savetxt(tmp_path / "pose" / f"{name}.txt", np.full((4, 4), translation))
    with pytest.raises(InputError, match="intrinsic_depth"):
        read_scan(tmp_path)
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_depth.txt", 5 * np.eye(4))
    frames, intrinsics = read_scan(tmp_path)
    images, depths, poses = zip(*frames, strict=True)
    assert intrinsics.tolist() == (5 * np.eye(3)).tolist() and [pose[0, 0] for pose in poses] == [1, 3]
    assert images[0].shape == (2, 4, 3) and images[0][0, 0].tolist() == [9, 8, 7] and (depths[1] == 1.5).all()
    (tmp_path / "pose" / "2.txt").unlink()
    with pytest.raises(InputError, match="pose lacks the .txt files of 2"):
        read_scan(tmp_path)


@pytest.mark.parametrize("script", [voxel_map, label_video, ros_node])
def test_a_list_without_words_is_refused_at_once(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--weights", "none.ckpt", "--words", " , "])
    assert "--words" in capsys.readouterr().err


def test_the_map_of_the_room_is_written(weights, tmp_path, capsys):
    voxel_map.main(
        ["--weights", str(weights), "--frames", "2", "--words", "red circle, fog", "--output_dir", str(tmp_path)]
    )
    assert "red circle" in capsys.readouterr().out
    answers, made = json.loads((tmp_path / "answers.json").read_text()), np.load(tmp_path / "map.npz")
    assert [one["word"] for one in answers["answers"]] == ["red circle", "fog"] and "right" not in answers
    assert len(made["centres"]) == len(made["embeddings"]) == answers["cubes"] > 1000
    np.testing.assert_allclose(np.linalg.norm(made["embeddings"].astype(float), axis=1), 1, atol=0.01)
    assert Image.open(tmp_path / "map.png").width > 300
    with pytest.raises(InputError, match=r"--frames 0.*\n.*none\.ckpt"):
        voxel_map.main(["--weights", "none.ckpt", "--frames", "0", "--output_dir", str(tmp_path)])


def test_a_video_is_labelled(weights, tmp_path):
    clip = video(tmp_path / "clip.mp4", 6)
    arguments = ["--weights", str(weights), "--words", "dog, grass", "--output_dir", str(tmp_path / "out")]
    label_video.main([str(clip), *arguments, "--every", "0.0001"])
    header, *rows = (tmp_path / "out" / "areas.csv").read_text().splitlines()
    shares = np.array([[float(cell) for cell in row.split(",")] for row in rows])
    assert header == "seconds,dog,grass" and len(rows) == 6
    np.testing.assert_allclose(shares[:, 1:].sum(1), 1, atol=1e-6)
    assert (np.diff(shares[:, 0]) > 0).all() and (tmp_path / "out" / "timeline.png").exists()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4 is not a video"):
        label_video.main([str(tmp_path / "text.mp4"), *arguments])
    with pytest.raises(InputError, match=r"no video .*none\.mp4\n.*--words"):
        label_video.main([str(tmp_path / "none.mp4"), *arguments[:2], *arguments[4:]])


# ------------------------------------------------------------------------------------------------------ the ROS 2 node


class Brightness:
    """Stands in for the predictor: label 1 where a pixel is bright."""

    def encode_text(self, words: list[str]) -> torch.Tensor:
        return torch.eye(len(words))

    def segment(self, image: np.ndarray, text: torch.Tensor, names: list[str]) -> SimpleNamespace:
        return SimpleNamespace(mask=(image[..., 0] > 100).astype(int) * (len(names) - 1))


def message(image: np.ndarray, encoding: str = "rgb8", pad: int = 0, header: object = None) -> ros_node.Image:
    rows = np.pad(image.reshape(len(image), -1), ((0, 0), (0, pad)))
    return ros_node.Image(*image.shape[:2], encoding, rows.shape[1], rows.tobytes(), header=header)


def test_messages_of_every_encoding_become_the_same_picture():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    alpha = np.full((3, 5, 1), 9, np.uint8)
    for encoding, sent in (
        ("rgb8", image),
        ("bgr8", image[..., ::-1]),
        ("rgba8", np.concatenate([image, alpha], -1)),
        ("bgra8", np.concatenate([image[..., ::-1], alpha], -1)),
    ):
        assert (to_array(message(sent, encoding, pad=3)) == image).all()
    assert (to_array(message(image[..., :1], "mono8")) == image[..., :1]).all()
    with pytest.raises(InputError, match="16UC1"):
        to_array(message(image, "16UC1"))
    with pytest.raises(InputError, match="45 bytes"):
        to_array(ros_node.Image(4, 5, "rgb8", 15, image.tobytes()))
    mask = image[..., 0]
    assert (to_array(to_message(mask, "header", ros_node.Image))[..., 0] == mask).all()


def test_the_newest_image_is_segmented_with_the_newest_words(capsys):
    published: list = []
    node = Segmenter(Brightness(), ["dark", "bright"], published.append)
    bright = np.full((2, 3, 3), 200, np.uint8)
    assert not node.work() and not published
    for header in ("old", "new"):
        node.on_image(message(bright, header=header))
    assert node.work() and not node.work()
    (mask,) = published
    assert (mask.header, mask.height, mask.width, mask.encoding) == ("new", 2, 3, "mono8")
    assert (to_array(mask) == 1).all()
    node.on_words(SimpleNamespace(data="a, b, c"))
    node.on_words(SimpleNamespace(data=", "))  # cannot be used
    node.on_image(message(bright))
    node.work()
    assert (to_array(published[1]) == 2).all() and "words not changed" in capsys.readouterr().err


def test_the_node_runs_in_something_like_ros(weights, monkeypatch, capsys):
    subscribed, published = {}, []
    node = SimpleNamespace(
        create_publisher=lambda kind, topic, depth: SimpleNamespace(publish=published.append),
        create_subscription=lambda kind, topic, callback, depth: subscribed.update({topic: callback}),
        create_timer=lambda period, callback: subscribed.update(timer=callback),
    )

    def spin(spun: object) -> None:
        """One image, and one tick of the timer."""
        subscribed["image"](message(np.zeros((40, 50, 3), np.uint8), header="h"))
        subscribed["timer"]()

    rclpy = ModuleType("rclpy")
    started: list = []
    rclpy.init, rclpy.create_node, rclpy.spin = lambda args: started.extend(args), lambda name: node, spin
    kinds = {"sensor_msgs.msg": {"Image": ros_node.Image}, "std_msgs.msg": {"String": SimpleNamespace}}
    reliability = SimpleNamespace(BEST_EFFORT="best effort")
    kinds["rclpy.qos"] = {"QoSProfile": SimpleNamespace, "ReliabilityPolicy": reliability}
    for name, content in kinds.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name.split(".")[0], ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "rclpy", rclpy)
    remapped = ["--ros-args", "-r", "image:=/camera/color/image_raw"]
    ros_node.main(["--weights", str(weights), "--words", "dog, grass", *remapped])
    assert started == remapped
    assert (published[0].header, published[0].height) == ("h", 40) and "words" in subscribed
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(InputError, match="--demo"):
        ros_node.main(["--weights", str(weights), "--words", "dog"])


def test_the_demonstration_writes_its_picture(weights, tmp_path):
    words = "red circle, grass"
    ros_node.main(["--weights", str(weights), "--words", words, "--demo", str(tmp_path)])
    assert Image.open(tmp_path / "ros_node.png").width > 500
