"""Makes MXNet importable on every Python before any test module imports it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist share the cores

import mxtrt  # noqa: F401
