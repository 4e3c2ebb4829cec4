"""Find faces with MTCNN, a cascade of three nets, with MXNet and with mxtrt, and compare both.

    MXTRT_TEST_MODELS=models python examples/02_face_detection/detect.py [IMAGE]

The nets are the trained ones of pangyupo/mxnet_mtcnn_face_detection, in the folders `mtcnn_det1`,
`mtcnn_det2` and `mtcnn_det3` of the folder that MXTRT_TEST_MODELS names. The first one looks at the
whole image in ever smaller copies, so its input has another size at every call; the others look at
the boxes that it proposes, as many as there are. `Net` is all that mxtrt changes: one line.
Without IMAGE, a face is drawn.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import mxtrt  # isort: skip  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx
import numpy as np

os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # or MXNet logs a line at every bind

SMALLEST_FACE = 40  # pixels
SCORES = (0.6, 0.7, 0.7)  # of each net: boxes with less are dropped


class Net:
    """One net of the cascade, bound anew where the size of its input changes."""

    def __init__(self, prefix: Path, optimize: bool) -> None:
        self.symbol, self.args, self.auxs = mx.model.load_checkpoint(str(prefix), 0)
        if optimize:
            self.symbol, (self.args, self.auxs) = mxtrt.optimize(
                self.symbol, (self.args, self.auxs)
            )
        self.executor = None

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        if self.executor is None:
            self.executor = self.symbol.simple_bind(mx.cpu(), grad_req="null", data=images.shape)
            self.executor.copy_params_from(self.args, self.auxs)
        elif self.executor.arg_dict["data"].shape != images.shape:
            self.executor = self.executor.reshape(
                partial_shaping=True, allow_up_sizing=True, data=images.shape
            )
        return [out.asnumpy() for out in self.executor.forward(data=mx.nd.array(images))]


def detect(nets: list[Net], image: np.ndarray) -> np.ndarray:
    """Return the faces in an image (height, width, 3): rows of left, top, right, bottom, score."""
    propose, refine, decide = nets
    boxes = keep(np.concatenate([proposals(propose, image, s) for s in scales(image)]), 0.7)
    for net, size, score in ((refine, 24, SCORES[1]), (decide, 48, SCORES[2])):
        if not len(boxes):
            return boxes
        boxes = squares(boxes)
        *_, offsets, scores = net(np.stack([crop(image, box, size) for box in boxes]))
        sure = scores[:, 1] > score
        boxes = keep(moved(boxes[sure], offsets[sure], scores[sure, 1]), 0.7)
    return keep(boxes, 0.3)


def scales(image: np.ndarray) -> list[float]:
    """Return how much smaller the copies are: the smallest face has 12 pixels in the first."""
    first, factor = 12 / SMALLEST_FACE, 0.709
    count = int(np.log(12 / (min(image.shape[:2]) * first)) / np.log(factor)) + 1
    return [first * factor**i for i in range(count)]


def proposals(net: Net, image: np.ndarray, scale: float) -> np.ndarray:
    """Return the windows of 12 pixels of a smaller copy that may hold a face."""
    height, width = (int(np.ceil(n * scale)) for n in image.shape[:2])
    offsets, scores = net(pixels(image, width, height)[None])
    row, column = np.nonzero(scores[0, 1] > SCORES[0])
    left, top = (2 * column + 1) / scale, (2 * row + 1) / scale
    boxes = np.stack([left, top, left + 12 / scale, top + 12 / scale, 0 * left], axis=1)
    found = moved(boxes, offsets[0, :, row, column], scores[0, 1, row, column])
    return keep(found, 0.5)


def pixels(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return an image in another size, as the nets want it: (3, height, width), around 0."""
    resized = mx.image.imresize(mx.nd.array(image, dtype="uint8"), width, height).asnumpy()
    return (resized.transpose(2, 0, 1).astype("float32") - 127.5) / 128


def crop(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return what is in a box, and black where it lies outside of the image."""
    left, top, right, bottom = box[:4].astype(int)
    inside = np.zeros((max(bottom - top, 1), max(right - left, 1), 3), "uint8")
    x, y = max(left, 0), max(top, 0)
    part = image[y : max(bottom, 0), x : max(right, 0)]
    inside[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]] = part
    return pixels(inside, size, size)


def moved(boxes: np.ndarray, offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return boxes corrected by what a net says, in parts of their width and height."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    return np.column_stack([boxes[:, :4] + offsets * sides, scores])


def squares(boxes: np.ndarray) -> np.ndarray:
    centre, sides = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
    half = sides.max(axis=1, keepdims=True) / 2
    return np.column_stack([(centre - half).round(), (centre + half).round(), boxes[:, 4]])


def keep(boxes: np.ndarray, overlap: float) -> np.ndarray:
    """Return the best of boxes that overlap more than so much."""
    found, rest = [], boxes[np.argsort(-boxes[:, 4])]
    while len(rest):
        best, rest = rest[0], rest[1:]
        found.append(best)
        sides = np.minimum(best[2:4], rest[:, 2:4]) - np.maximum(best[:2], rest[:, :2])
        common = sides.clip(0).prod(axis=1)
        areas = (rest[:, 2:4] - rest[:, :2]).prod(axis=1) + (best[2:4] - best[:2]).prod()
        rest = rest[common / (areas - common) <= overlap]
    return np.array(found).reshape(-1, 5)


def drawn(height: int = 240, width: int = 320) -> np.ndarray:
    """Return a drawn face before a grey wall: blue, green, red, as OpenCV reads images."""
    y, x = np.mgrid[:height, :width].astype("float32")
    image = np.full((height, width, 3), 150.0, "float32")

    def shade(left, top, wide, high, colour, soft=0.15) -> None:
        distance = np.hypot((x - left) / wide, (y - top) / high)
        share = ((1 + soft - distance) / soft).clip(0, 1)[..., None]
        image[:] = image * (1 - share) + np.array(colour, "float32") * share

    shade(160, 108, 62, 80, (30, 35, 45))  # hair
    shade(160, 122, 50, 66, (130, 165, 215))  # skin
    for side in (-1, 1):
        shade(160 + 21 * side, 96, 13, 3, (40, 50, 70), 0.5)  # brow
        shade(160 + 21 * side, 109, 9, 5, (225, 230, 235), 0.3)  # eye
        shade(160 + 21 * side, 109, 4.5, 4.5, (25, 30, 40), 0.4)
        shade(160 + 6 * side, 138, 4, 3, (80, 105, 150), 0.8)  # nostril
    shade(160, 128, 5, 16, (150, 185, 230), 1.0)  # nose
    shade(160, 159, 19, 6, (90, 90, 170), 0.4)  # mouth
    return image.clip(0, 255).astype("uint8")


def main() -> None:
    folder = Path(os.environ.get("MXTRT_TEST_MODELS", "models"))
    image = mx.image.imread(sys.argv[1], to_rgb=0).asnumpy() if sys.argv[1:] else drawn()
    faces = {}
    for name, optimize in (("MXNet", False), ("mxtrt", True)):
        names = [f"mtcnn_det{i}" for i in (1, 2, 3)]
        nets = [Net(folder / each / each, optimize) for each in names]
        detect(nets, image)
        start = time.perf_counter()
        faces[name] = detect(nets, image)
        print(f"{name}: {1000 * (time.perf_counter() - start):.1f} ms")
    for left, top, right, bottom, score in faces["mxtrt"]:
        print(f"face from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f}): {score:.1%}")
    np.testing.assert_allclose(faces["mxtrt"], faces["MXNet"], rtol=1e-3, atol=1e-2)
    print(f"faces that MXNet and mxtrt find, the same: {len(faces['MXNet'])}")


if __name__ == "__main__":
    main()
