"""Makes MXNet importable on every Python before any test module imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist share the cores
os.environ.setdefault("MXTRT_CACHE_DIR", "off")  # a test that wants a store makes its own

import mxtrt  # noqa: F401  # isort: skip
import mxnet as mx  # isort: skip


@pytest.fixture(scope="module")
def np_shape() -> Iterator[None]:
    """Let the module's tests have axes of size 0 and arrays without axes."""
    with mx.util.np_shape(True):
        yield
