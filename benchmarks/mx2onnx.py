"""Export a checkpoint with MXNet's own mx2onnx; runs in an environment with an old onnx.

python mx2onnx.py PREFIX SHAPE OUTPUT
"""

from __future__ import annotations

import sys

import mxnet as mx
import numpy as np

prefix, shape, output = sys.argv[1:]
symbol, args, aux = mx.model.load_checkpoint(prefix, 0)
sizes = tuple(int(size) for size in shape.split(","))
mx.onnx.export_model(symbol, {**args, **aux}, [sizes], np.float32, output)
