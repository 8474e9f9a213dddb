"""LangSplat's pair of files for a picture: each pixel's segment (``_s``), and a vector for each segment (``_f``)."""

from __future__ import annotations

import numpy as np

from lseg_utils.feature_store import FeatureStore

LEVELS = 4  # LangSplat has segments of four sizes; here they are the same
SMALLEST = 16  # pixels; smaller segments belong to none, which is -1


def segment_pair(store: FeatureStore, name: str, size: str | tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """int32 (4, H, W) numbers of segments or -1, and float16 (segments, C) unit vectors.

    A segment is a connected region of pixels with the same best label of the store; its vector is the mean of theirs.
    """
    import cv2

    labels = store.similarity(name, size=size).argmax(-1)  # (H, W)
    segments, count = np.full(labels.shape, -1, np.int32), 0
    for label in np.unique(labels):
        _, regions = cv2.connectedComponents((labels == label).astype(np.uint8))
        areas = np.bincount(regions.ravel())
        for region in np.flatnonzero(areas[1:] >= SMALLEST) + 1:
            segments[regions == region] = count
            count += 1
    embedding = store.frame(name, size)[segments >= 0]  # (M, C)
    sums = np.zeros((count, embedding.shape[-1]))
    np.add.at(sums, segments[segments >= 0], embedding)
    features = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return np.repeat(segments[None], LEVELS, 0), features.astype(np.float16)
