"""The layers of a plan, as TensorRT's own inspector tells them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import EngineError
from ._execution import LoadedPlan

MAX_TACTIC = 60  # letters


@dataclass(frozen=True)
class Layer:
    """A layer of a plan.

    Attributes
    ----------
    name : str
        TensorRT's name: those of the ONNX nodes that it runs.
    kind : str
        TensorRT's name of its type, ``""`` where it does not say.
    formats : str
        The types and layouts of its outputs, such as ``"fp16 NHWC8"``.
    shapes : str
        The shapes of its outputs.
    tactic : str
        The kernel that runs it.
    """

    name: str
    kind: str = ""
    formats: str = ""
    shapes: str = ""
    tactic: str = ""


def layers(plan: LoadedPlan) -> list[Layer]:
    """Return the layers of a plan, in the order in which they run.

    Raises
    ------
    EngineError
        TensorRT tells nothing about the plan.
    """
    trt = plan.api.module
    with plan.gpu:
        inspector = plan.engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        # 8.6 leaves line ends in names as they are
        told = json.loads(text, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{plan.api.title} tells nothing about the plan's layers") from error
    return [read_layer(layer) for layer in told]


def read_layer(told: str | Mapping[str, Any]) -> Layer:
    """Return a layer from TensorRT's JSON: a mapping, or only a name."""
    if isinstance(told, str):
        return Layer(told.strip())
    outputs = [output for output in told.get("Outputs", ()) if isinstance(output, Mapping)]
    tactic = str(told.get("TacticName") or told.get("TacticValue") or "")
    return Layer(
        name=str(told.get("Name", "")),
        kind=str(told.get("LayerType", "")),
        formats=", ".join(dict.fromkeys(_format(output) for output in outputs)),
        shapes=", ".join(_shape(output) for output in outputs),
        tactic=tactic if len(tactic) <= MAX_TACTIC else tactic[: MAX_TACTIC - 1] + "…",
    )


def _format(output: Mapping[str, Any]) -> str:
    """Return ``"fp16 NHWC8"`` for ``"Channel major FP16 format where channel % 8 == 0"``."""
    text = str(output.get("Format/Datatype", ""))
    kind = re.search(r"fp32|fp16|bf16|int8|int32|int64|fp8|bool|half|float", text.lower())
    if kind is None:
        return text
    type_name = {"half": "fp16", "float": "fp32"}.get(kind[0], kind[0])
    packed = re.search(r"channel % (\d+)", text)
    if packed is None:
        return f"{type_name} linear" if "linear" in text.lower() else type_name
    return f"{type_name} {'NHWC' if text.startswith('Channel major') else 'NC/'}{packed[1]}"


def _shape(output: Mapping[str, Any]) -> str:
    return f"({', '.join(map(str, output.get('Dimensions', ())))})"
