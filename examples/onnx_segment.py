"""Segment a picture with the files of export_lseg.py, using only onnxruntime and NumPy (Pillow reads the picture).

python examples/onnx_segment.py FOLDER PICTURE MASK.png    # pixel value = number of the label, 16 bits beyond 256
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def upsample_x2(x: np.ndarray) -> np.ndarray:
    """(N, h, w) -> (N, 2h, 2w), bilinear with aligned corners."""
    for axis in (1, 2):
        size = x.shape[axis]
        position = np.arange(2 * size, dtype=np.float32) * ((size - 1) / (2 * size - 1))
        low = np.minimum(position.astype(int), size - 2)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(3)])
        x = x.take(low, axis) * (1 - weight) + x.take(low + 1, axis) * weight
    return x


def segment(folder: str, image: Image.Image, long_side: int | None = None) -> tuple[np.ndarray, list[str]]:
    """The number of the best label of each pixel, (H, W), and the labels; default long side: that of the training."""
    about = np.load(f"{folder}/lseg.npz")
    tower = onnxruntime.InferenceSession(f"{folder}/lseg.onnx", providers=["CPUExecutionProvider"])
    long_side = long_side or int(about["long_side"])
    size = [max(2, round(side * long_side / max(image.size) / 32)) * 32 for side in image.size]  # multiples of 32
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32) / 255
    pixels = ((pixels - about["mean"]) / about["std"]).transpose(2, 0, 1)[None]  # (1, 3, H, W)
    embedding = tower.run(None, {"images": pixels})[0][0]  # (C, H/2, W/2)
    embedding /= np.maximum(np.linalg.norm(embedding, axis=0), 1e-6)
    logits = about["logit_scale"] * np.tensordot(about["text"], embedding, 1)  # (N, H/2, W/2)
    mask = Image.fromarray(upsample_x2(logits).argmax(0).astype(np.int32))
    return np.asarray(mask.resize(image.size, Image.Resampling.NEAREST)), about["labels"].tolist()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER PICTURE MASK.png")
    try:
        mask, labels = segment(sys.argv[1], ImageOps.exif_transpose(Image.open(sys.argv[2])))
        Image.fromarray(mask.astype(np.uint8 if len(labels) <= 256 else np.uint16)).save(sys.argv[3])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        sys.exit(
            f"error: {error}; FOLDER must come from `python export_lseg.py`, PICTURE and MASK.png must be picture files"
        )
    for number, label in enumerate(labels):
        print(f"{(mask == number).mean():6.1%} {label}")
