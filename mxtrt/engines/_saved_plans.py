"""Plans that are taken from one process to another beside their model; see ``saved.py``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from . import _cuda
from ._execution import LoadedPlan
from ._profiles import Profile, Range
from ._stored import machine_facts

if TYPE_CHECKING:
    from ._nvidia import Api

log = logging.getLogger("mxtrt")


@dataclass(frozen=True)
class SavedPlan:
    """A plan and what it depends on, apart from the model.

    Attributes
    ----------
    facts : mapping
        The versions and the GPU; see `machine_facts`.
    sizes : tuple
        The sizes of its inputs; see `Profile`.
    content : bytes
        The plan.
    """

    facts: Mapping[str, Any]
    sizes: tuple[tuple[Range, ...], ...]
    content: bytes


def save_plan(api: Api, device: int, profile: Profile, plan: LoadedPlan) -> SavedPlan:
    """Return a loaded plan as bytes."""
    with plan.gpu:
        content = bytes(plan.engine.serialize())
    return SavedPlan(machine_facts(api, _cuda.gpu(device)), profile.inputs, content)


def of_this_machine(
    api: Api, device: int, name: str, plans: Sequence[SavedPlan]
) -> Iterator[SavedPlan]:
    """Yield those of the plans of a part that are of this GPU and of these versions."""
    if not plans:
        return
    facts = machine_facts(api, _cuda.gpu(device))
    for saved in plans:
        other = [f"{n} {value}" for n, value in saved.facts.items() if facts.get(n) != value]
        if saved.facts == facts:
            yield saved
        else:
            log.warning("%s is built anew: its plan is of %s", name, ", ".join(other) or "others")


def load_saved(
    name: str, saved: SavedPlan, load: Any, gpu: _cuda.Gpu
) -> tuple[Profile, LoadedPlan] | None:
    """Load a plan, or say why it has to be built anew."""
    try:
        with gpu:
            plan = load(gpu, saved.content)
    except EngineError as error:
        log.warning("%s is built anew: %s", name, error)
        return None
    log.info("%s runs the plan that was saved", name)
    return Profile(saved.sizes), plan
