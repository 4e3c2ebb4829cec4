"""A plan in a file, and what is known of it in a second one.

``net.plan`` holds what TensorRT's builder made and nothing else, so that ``trtexec`` and every
other program of NVIDIA's read it. ``net.plan.json`` beside it says what TensorRT itself tells late
or not at all: the checksum, which TensorRT and which GPU it is for, its inputs and their sizes. A
plan without the second file, of another program, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Union

from .errors import BadOption, BadPlan

PathLike = Union[str, "os.PathLike[str]"]

FORMAT = "mxtrt plan 1"
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class PlanInfo:
    """What is known of a plan.

    Attributes
    ----------
    engine : str
        ``"tensorrt"`` or ``"tensorrt_rtx"``.
    version : str
        The version of that package.
    gpu : str or None
        The GPU it was built on; None where it was built without one.
    capabilities : tuple of str
        The compute capabilities that it runs on, such as ``"SM86"``.
    precision : str
        What was asked for.
    inputs, outputs : tuple of mapping
        ``name`` and ``dtype`` of each, and of the inputs the ``sizes``: for each axis the
        smallest, the best and the largest.
    seconds : float
        How long the build took.
    portable : bool
        Whether other versions of TensorRT, or other GPUs, take it as well.
    nbytes : int
        The size of the plan.
    sha256 : str
        Its checksum.
    """

    engine: str
    version: str
    gpu: str | None
    capabilities: tuple[str, ...]
    precision: str
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    seconds: float
    portable: bool = False
    nbytes: int = 0
    sha256: str = field(default="", repr=False)

    def lines(self) -> Iterator[str]:
        """Yield what a person wants to know, line by line."""
        title = TITLES.get(self.engine, self.engine)
        where = f"on {self.gpu}" if self.gpu else "without a GPU"
        runs_on = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in self.capabilities)
        yield f"{title} {self.version}, {self.precision}, {self.nbytes / 2**20:.1f} MiB"
        yield f"  built    {where} in {self.seconds:.1f} s, for compute capability {runs_on}"
        for tensor in self.inputs:
            shape = format_sizes(tensor["sizes"])
            yield f"  input    {tensor['name']} {shape} {tensor['dtype']}"
        for tensor in self.outputs:
            yield f"  output   {tensor['name']} {tensor['dtype']}"


def format_sizes(sizes: Iterable[Sequence[int]]) -> str:
    """Return sizes as people write them: ``(1..8..32, 3, 224, 224)``."""
    told = [str(low) if low == high else f"{low}..{best}..{high}" for low, best, high in sizes]
    return f"({', '.join(told)}{',' if len(told) == 1 else ''})"


def write_plan(path: PathLike, plan: Any, info: PlanInfo) -> PlanInfo:
    """Write a plan and what is known of it; earlier files are replaced when all is written.

    Raises
    ------
    BadOption
        The files cannot be written.
    """
    name = os.fspath(path)
    view = memoryview(plan)
    complete = PlanInfo(
        **{**vars(info), "nbytes": view.nbytes, "sha256": hashlib.sha256(view).hexdigest()}
    )
    told = json.dumps({"format": FORMAT, **asdict(complete)}, indent=1)
    try:
        # killed in between, the two do not fit together, and that is noticed
        _replace(name, view)
        _replace(info_path(name), told.encode())
    except OSError as error:
        raise BadOption(f"{name}: cannot be written: {error.strerror or error}") from None
    return complete


def read_plan(path: PathLike) -> tuple[bytes, PlanInfo | None]:
    """Return a plan, and what is known of it.

    Raises
    ------
    BadPlan
        The file is missing, was cut off or changed.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            plan = file.read()
    except OSError as error:
        raise BadPlan(f"{name}: {error.strerror or error}") from None
    if not plan:
        raise BadPlan(f"{name}: the file is empty; build the plan again")
    info = read_info(name)
    if info is not None:
        _check(name, plan, info)
    return plan, info


def read_info(path: PathLike) -> PlanInfo | None:
    """Return what is known of a plan, or None where its second file is missing.

    Raises
    ------
    BadPlan
        The second file is damaged.
    """
    name = info_path(path)
    try:
        with open(name, encoding="utf-8") as file:
            told = json.load(file)
        if told.pop("format") != FORMAT:
            raise BadPlan(f"{name}: of another version of mxtrt; build the plan again")
        info = PlanInfo(**told)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadPlan(f"{name}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, BadPlan):
            raise
        raise BadPlan(f"{name}: damaged ({error}); build the plan again") from None
    listed = {name: tuple(vars(info)[name]) for name in ("capabilities", "inputs", "outputs")}
    return PlanInfo(**{**vars(info), **listed})


def info_path(path: PathLike) -> str:
    """Return the name of a plan's second file."""
    return f"{os.fspath(path)}.json"


def _check(name: str, plan: bytes, info: PlanInfo) -> None:
    if hashlib.sha256(plan).hexdigest() == info.sha256:
        return
    if len(plan) < info.nbytes:
        what = f"it was cut off: {len(plan):,} of {info.nbytes:,} bytes are left"
    else:
        what = "it was changed since it was built"
    raise BadPlan(
        f"{name}: {what}; build it again, or delete {os.path.basename(info_path(name))} if another "
        "program made the plan"
    )


def _replace(path: str, content: Any) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".mxtrt-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
