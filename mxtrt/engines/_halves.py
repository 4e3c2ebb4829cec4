"""A batch in two halves: the second one is copied to the GPU while the first one is computed."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .._transfer import Transfer
from ..errors import EngineError
from ._streams import Event

if TYPE_CHECKING:
    from ._contexts import Lane, Shapes

log = logging.getLogger("mxtrt")

LARGE = 2 << 20  # bytes of inputs: less is copied by the time that one more launch takes
ALIGNMENT = 256  # bytes; TensorRT's own, for the addresses of inputs and outputs
TIMED_CALLS = 5  # of each way, after one that warms up
GAIN = 0.97  # halves have to take less than this part of the time


class Halves:
    """What a lane needs to run the two halves of a batch, one after the other.

    Until `end` the lane's context has the shapes of a half.

    Parameters
    ----------
    lane : Lane
        Prepared for the whole batch, and at rest; its GPU must be current.

    Raises
    ------
    EngineError
        TensorRT does not take half of the batch.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane, self._whole = lane, lane.shapes
        self._places = [
            (staging.tensor.name, *staging.place())
            for staging in (*lane.inputs, *lane.outputs)
            if staging.tensor is not None
        ]
        self._copies = lane.gpu.stream()
        self._sizes = [staging.place()[2] // 2 for staging in lane.inputs]
        self._uploads = [self._upload(i) for i in range(2)]
        self._arrivals = [Event(lane.gpu) for _ in range(2)]
        try:
            lane.set_shapes(tuple((shape[0] // 2, *shape[1:]) for shape in self._whole))
        except EngineError:
            self.end()
            raise

    def run(self, arrays: Sequence[int]) -> int:
        """Copy the inputs and enqueue both halves; return CUDA's status.

        Parameters
        ----------
        arrays : sequence of int
            Where the inputs are; 0 for what lies in pinned memory.
        """
        lane = self._lane
        for i, (upload, arrival) in enumerate(zip(self._uploads, self._arrivals)):
            starts = [a and a + i * size for a, size in zip(arrays, self._sizes)]
            status: int = upload.upload(starts)
            if status:
                return status
            arrival.record(self._copies.handle)
            arrival.let_wait(lane.handle)
            self._place(i)
            if not lane.enqueue():
                raise lane.plan.not_enqueued()
        return 0

    def end(self) -> None:
        """Let the context have the whole batch again; the GPU must be current."""
        self.close()
        self._place(0)
        self._lane.set_shapes(self._whole)

    def close(self) -> None:
        """Free what is not the lane's; the GPU must be current."""
        for arrival in self._arrivals:
            arrival.close()

    def _upload(self, i: int) -> Transfer:
        places = [
            (pinned + i * (nbytes // 2), device + i * (nbytes // 2), nbytes // 2)
            for pinned, device, nbytes in (staging.place() for staging in self._lane.inputs)
        ]
        return Transfer(self._lane.gpu.functions(), self._copies.handle, places, [])

    def _place(self, i: int) -> None:
        for name, _, device, nbytes in self._places:
            if not self._lane.context.set_tensor_address(name, device + i * (nbytes // 2)):
                raise EngineError(f"TensorRT does not take the address of {name!r}")


def worth_halving(lane: Lane) -> bool:
    """Say whether a lane's batch is large, and can be halved where it lies on the GPU."""
    used = [staging for staging in (*lane.inputs, *lane.outputs) if staging.tensor is not None]
    batches = {staging.shape[0] if staging.shape else 0 for staging in used}
    sizes = [staging.place()[2] for staging in used]
    return (
        sum(staging.place()[2] for staging in lane.inputs) >= LARGE
        and len(batches) == 1
        and batches.pop() % 2 == 0
        and all(nbytes % (2 * ALIGNMENT) == 0 for nbytes in sizes)
    )


def halves_if_faster(
    lane: Lane, run: Callable[[Halves | None], None], known: dict[Shapes, bool]
) -> Halves | None:
    """Return what runs a lane's batch in halves, or None where that is not faster.

    The engine runs some times for this, with the inputs and outputs of the present call.

    Parameters
    ----------
    lane : Lane
        Prepared, and at rest; its GPU must be current.
    run : callable
        Runs the present call, in halves or, for None, whole.
    known : dict
        For which shapes it was measured before, and whether halves were faster.
    """
    shapes = lane.shapes
    if known.get(shapes) is False:
        return None
    halves = None
    try:
        usual = 0.0 if shapes in known else _median(lambda: run(None))
        halves = Halves(lane)
        if usual:
            taken = _median(lambda: run(halves))
            known[shapes] = taken < GAIN * usual
            log.debug("a batch takes %.3f ms, in halves %.3f ms", usual * 1e3, taken * 1e3)
    except EngineError as error:  # such as half a batch outside the plan's sizes
        log.info("no batch of %s in halves: %s", shapes, error)
        known[shapes] = False
    if halves is not None and not known[shapes]:
        halves.end()
        return None
    return halves


def _median(run: Callable[[], None]) -> float:
    """Return the seconds that a call takes."""
    run()
    seconds = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
