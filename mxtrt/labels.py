"""Labels that users still pass to ``Module`` after the operator that read them has moved.

An optimised symbol has no ``softmax_label`` any more, but programs go on to bind their ``Module``
with ``label_shapes`` and to feed batches with labels, for ``score`` and its metrics. MXNet looks
every label up among the symbol's arguments; those that an optimised symbol lacks get an array of
their own, which nothing reads.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
from mxnet.module.executor_group import DataParallelExecutorGroup

from .operator import ENGINE_OP

_collect_arrays = DataParallelExecutorGroup._collect_arrays


def accept_missing_labels() -> None:
    """Let modules of optimised symbols take labels that the symbol does not read."""
    DataParallelExecutorGroup._collect_arrays = _collect_with_labels


def _collect_with_labels(group: Any) -> None:
    labels = group.label_shapes or []
    missing = {label.name for label in labels if label.name not in group.arg_names}
    if not missing or f'"{ENGINE_OP}"' not in group.symbol.tojson():
        _collect_arrays(group)
        return
    group.label_shapes = [label for label in labels if label.name not in missing]
    _collect_arrays(group)
    group.label_shapes = labels
    read = iter(group.label_arrays)
    group.label_arrays = [
        _unread(group, label) if label.name in missing else next(read) for label in labels
    ]


def _unread(group: Any, label: Any) -> list[tuple[slice, mx.nd.NDArray]]:
    """Return what MXNet keeps for a label: a slice of the batch and an array per executor."""
    sizes = [(part.stop - part.start, *label.shape[1:]) for part in group.slices]
    return [(part, mx.nd.empty(size)) for part, size in zip(group.slices, sizes)]
