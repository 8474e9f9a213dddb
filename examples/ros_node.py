"""A ROS 2 node that segments camera images with words which may change at any time; without ROS: --demo.

Subscribes to /image (sensor_msgs/Image) and /words (std_msgs/String, "cat, grass, other"); publishes /mask (Image,
mono8: the number of each pixel's word, counted from 0) with the header of its image. It always takes the newest image:
an image that arrives while the network is busy replaces the waiting one. Options of ROS 2, such as other names of
topics, follow --ros-args.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, raise_all, run_script
from lseg_utils.label_list import split_labels, word_list
from modules.weights_file import check_weights_file

CHANNELS = {"rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "rgba8": (4, [0, 1, 2]), "bgra8": (4, [2, 1, 0])}
CHANNELS["mono8"] = (1, [0, 0, 0])


@dataclass
class Image:
    """The fields of sensor_msgs/Image, for use without ROS."""

    height: int = 0
    width: int = 0
    encoding: str = "rgb8"
    step: int = 0
    data: bytes = b""
    is_bigendian: int = 0
    header: Any = field(default=None)


def to_array(message: Any) -> np.ndarray:
    """uint8 (H, W, 3) RGB of an Image message; ``InputError`` for an encoding that is not 8-bit colour or grey."""
    if message.encoding not in CHANNELS:
        raise InputError(f"images are {message.encoding}; this node takes {', '.join(CHANNELS)}")
    channels, order = CHANNELS[message.encoding]
    if message.step < message.width * channels or len(message.data) != message.height * message.step:
        raise InputError(
            f"an image of {message.width} x {message.height} pixels ({message.encoding}) has {len(message.data)} bytes "
            f"in rows of {message.step}; the camera's driver fills in Image wrongly"
        )
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)  # rows may be padded
    return rows[:, : message.width * channels].reshape(message.height, message.width, channels)[..., order]


def to_message(mask: np.ndarray, header: Any, kind: Callable[[], Any]) -> Any:
    """A mono8 Image message of a mask (H, W)."""
    message = kind()
    message.header, message.encoding = header, "mono8"
    message.height, message.width = mask.shape
    message.step, message.data = mask.shape[1], mask.astype(np.uint8).tobytes()
    return message


class Segmenter:
    """What the node does. ``publish`` gets messages that ``kind`` makes."""

    def __init__(self, predictor: Any, words: Sequence[str], publish: Callable[[Any], None], kind: Any = Image) -> None:
        self.predictor, self.publish, self.kind = predictor, publish, kind
        self.waiting: Any = None
        self.take_words(words)

    def take_words(self, words: Sequence[str]) -> None:
        """Use other words from the next image on; a text is encoded once."""
        if not 0 < len(words) <= 256:
            raise InputError(f"give 1 to 256 words, not {len(words)}")
        self.words, self.text = list(words), self.predictor.encode_text(words)

    def on_words(self, message: Any) -> None:
        """For the topic /words. Words that cannot be used are reported, and the earlier ones stay."""
        try:
            self.take_words(split_labels(message.data))
        except ValueError as error:
            print(f"words not changed: {error}", file=sys.stderr)

    def on_image(self, message: Any) -> None:
        """For the topic /image: remember the newest."""
        self.waiting = message

    def work(self) -> bool:
        """For a timer: segment the newest image, if there is one, and publish its mask."""
        message, self.waiting = self.waiting, None
        if message is None:
            return False
        mask = self.predictor.segment(to_array(message), self.text, names=self.words).mask
        self.publish(to_message(mask, message.header, self.kind))
        return True


def run_in_ros(predictor: Any, words: Sequence[str], arguments: Sequence[str]) -> None:
    """Spin until ROS shuts down. ``arguments`` are those of ROS, from --ros-args on."""
    try:
        import rclpy
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import Image as RosImage
        from std_msgs.msg import String
    except ImportError as error:
        raise InputError(f"{error}: source the setup file of your ROS 2 first, or try --demo FOLDER") from error
    rclpy.init(args=list(arguments))
    node = rclpy.create_node("lseg")
    publisher = node.create_publisher(RosImage, "mask", 1)
    segmenter = Segmenter(predictor, words, publisher.publish, RosImage)
    # Cameras often publish without acknowledgement; a subscription that asks for it would get nothing from them.
    newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(RosImage, "image", segmenter.on_image, newest)
    node.create_subscription(String, "words", segmenter.on_words, 1)
    node.create_timer(0.01, segmenter.work)
    rclpy.spin(node)


def demo(predictor: Any, words: Sequence[str], folder: Path) -> None:
    """Send images of the drawn room through the node, and write what it publishes next to them."""
    from examples import synthetic_room
    from examples.room_picture import word_colours
    from lseg_utils.named_maps import named_map
    from lseg_utils.pictures import save_picture, sheet

    masks: list[np.ndarray] = []
    node = Segmenter(predictor, words, lambda message: masks.append(to_array(message)[..., 0].astype(int)))
    images = [frame[0] for frame in synthetic_room.frames(8)][::2]
    for number, image in enumerate(images):
        node.on_image(Image(*image.shape[:2], "rgb8", image.shape[1] * 3, image.tobytes(), header=number))
        node.work()
    named = [named_map(mask, word_colours(words), words, factor=2, text_size=11) for mask in masks]
    rows = [images, named]
    save_picture(folder / "ros_node.png", sheet(rows, [""] * len(images), ["/image", "/mask"], cell=named[0].size))
    print(f"{len(masks)} masks published; see {folder / 'ros_node.png'}")


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--weights", required=True, help="use this checkpoint")
    parser.add_argument(
        "--words", type=word_list, help="begin with these words, separated by commas; default: the checkpoint's own"
    )
    parser.add_argument(
        "--demo", type=Path, metavar="FOLDER", help="use a drawn room instead of ROS, and write a picture here"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The node, or the demonstration."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    end = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    options = build_parser().parse(arguments[:end])
    (weights,) = raise_all([], lambda: check_weights_file(options.weights))
    from modules.predictor import LSegPredictor

    predictor = LSegPredictor.from_checkpoint(weights)
    words = options.words or predictor.net.labels
    if not words:
        raise InputError(f"{weights} has no labels of its own; give --words 'cat, grass, other'")
    if options.demo:
        demo(predictor, words, options.demo)
    else:
        run_in_ros(predictor, words, arguments[end:])


if __name__ == "__main__":
    run_script(main)
