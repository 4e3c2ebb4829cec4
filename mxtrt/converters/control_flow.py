"""Control flow: ``foreach``, ``while_loop`` and ``cond``.

Their bodies are symbols of their own, kept in the node. Each is read into a `Graph` and converted
into an ONNX body, which reads weights and other tensors of the graph around it by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UnsupportedOp
from ..graph import Graph, Node, Value
from ..onnx_model import OnnxModel
from ..registry import convert_node, converts
from ..symbol import read_body
from . import known_rank

if TYPE_CHECKING:
    from onnx import GraphProto

Tensors = tuple[str, ...]


@converts("_foreach")
def foreach(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    num_outputs: int,
    num_out_data: int,
    in_data_locs: tuple[int, ...],
    in_state_locs: tuple[int, ...],
    remain_locs: tuple[int, ...],
) -> Tensors:
    """``_foreach`` -> ``Scan``; the weights and what else does not change come from outside."""
    data = inputs[: len(in_data_locs)]
    states = inputs[len(data) : len(data) + len(in_state_locs)]
    others = inputs[len(data) + len(states) :]
    flat = [known_rank(value) == 1 for value in data]
    stands_for = dict(zip(in_data_locs, map(_slice_of, data, flat)))
    stands_for.update(zip(in_state_locs, (_anew(value) for value in states)))
    stands_for.update(zip(remain_locs, others))
    graph, variables = read_body(
        node.source["subgraphs"][0], [stands_for[i] for i in range(len(inputs))]
    )
    body = onnx.subgraph(node.name)
    for place in (*in_state_locs, *in_data_locs):
        body.declare(variables[place])
    for place, value in zip(remain_locs, others):
        body.alias(variables[place], onnx.declare(value))
    heads = convert_body(body, graph)
    made = onnx.ops(
        "Scan",
        *states,
        *(onnx.op("Unsqueeze", v, onnx.ints([1])) if f else v for v, f in zip(data, flat)),
        outputs=num_outputs,
        num_scan_inputs=len(data),
        body=_body(body, (*heads[num_out_data:], *heads[:num_out_data])),
    )
    return (*made[len(states) :], *made[: len(states)])


@converts("_while_loop")
def while_loop(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    num_outputs: int,
    num_out_data: int,
    max_iterations: int,
    cond_input_locs: tuple[int, ...],
    func_input_locs: tuple[int, ...],
    func_var_locs: tuple[int, ...],
) -> Tensors:
    """``_while_loop`` -> ``Loop``; outputs get zeros for the steps that were not taken.

    MXNet leaves these rows to whatever was in memory.
    """
    cond, func = node.source["subgraphs"]
    looping = [func_input_locs[place] for place in func_var_locs]
    around = {i: onnx.declare(value) for i, value in enumerate(inputs)}
    given = [_anew(v) if i in looping else v for i, v in enumerate(inputs)]
    body = onnx.subgraph(node.name)
    body.declare(Value("step", (), "int64"))
    body.declare(Value("again", (), "bool"))
    graph, variables = read_body(func, [given[i] for i in func_input_locs])
    for place in func_var_locs:
        body.declare(variables[place])
    for variable, i in zip(variables, func_input_locs):
        if i not in looping:
            body.alias(variable, around[i])
    heads = convert_body(body, graph)
    news = {i: body.declare(head) for i, head in zip(looping, heads[num_out_data:])}
    tests = [
        _condition(
            model, cond, [given[i] for i in cond_input_locs], [of[i] for i in cond_input_locs]
        )
        for model, of in ((onnx, around), (body, {**around, **news}))
    ]
    again = Value("again", (), "bool")
    body.alias(again, tests[1])
    made = onnx.ops(
        "Loop",
        onnx.constant(max_iterations, "int64"),
        tests[0],
        *(around[i] for i in looping),
        outputs=num_outputs,
        body=_body(body, (again, *heads[num_out_data:], *heads[:num_out_data])),
    )
    rows = [_filled_up(onnx, v, max_iterations, h) for v, h in zip(made[len(looping) :], heads)]
    return (*rows, *made[: len(looping)])


@converts("_cond")
def cond(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    num_outputs: int,
    cond_input_locs: tuple[int, ...],
    then_input_locs: tuple[int, ...],
    else_input_locs: tuple[int, ...],
) -> Tensors:
    """``_cond`` -> ``If``."""
    test, *branches = node.source["subgraphs"]
    around = [onnx.declare(value) for value in inputs]
    bodies = [
        _branch(onnx, node, branch, [inputs[i] for i in locs], [around[i] for i in locs])
        for branch, locs in zip(branches, (then_input_locs, else_input_locs))
    ]
    read = [inputs[i] for i in cond_input_locs], [around[i] for i in cond_input_locs]
    return onnx.ops(
        "If",
        _condition(onnx, test, *read),
        outputs=num_outputs,
        then_branch=bodies[0],
        else_branch=bodies[1],
    )


def _anew(value: Value) -> Value:
    """Return what a body sees of a value that changes from step to step."""
    return Value(value.name, value.shape, value.dtype)


def _slice_of(value: Value, flat: bool) -> Value:
    """Return what a body sees of data: a slice of the first axis, of one number if it is `flat`."""
    shape = value.shape and value.shape[1:]
    return Value(value.name, (1,) if flat else shape, value.dtype)


def convert_body(model: OnnxModel, graph: Graph) -> tuple[Value, ...]:
    """Convert a body's nodes and return its heads.

    Raises
    ------
    UnsupportedOp
        One of the nodes cannot be said in ONNX.
    """
    node = None
    try:
        for node in graph.nodes:
            convert_node(model, node)
    except UnsupportedOp as reason:
        raise UnsupportedOp(f"its body has {node}: {reason}") from None
    return graph.heads


def _body(model: OnnxModel, outputs: Sequence[Value]) -> GraphProto:
    """Return the finished body; an output may be an input of it, or a tensor from outside."""
    own = [Value(value.name, value.shape, value.dtype) for value in outputs]
    for value, output in zip(own, outputs):
        model.alias(value, model.op("Identity", output))
    return model.finish(own).graph


def _condition(
    model: OnnxModel, source: dict[str, object], values: Sequence[Value], tensors: Sequence[str]
) -> str:
    """Convert a condition into `model` and return it as one bool."""
    graph, variables = read_body(source, values)
    for variable, tensor in zip(variables, tensors):
        model.alias(variable, tensor)
    (head,) = convert_body(model, graph)
    return model.op("Reshape", model.cast(head, "bool"), model.ints([]))


def _branch(
    onnx: OnnxModel,
    node: Node,
    source: dict[str, object],
    values: Sequence[Value],
    tensors: Sequence[str],
) -> GraphProto:
    """Return one branch of an ``If``; everything that it reads is outside."""
    body = onnx.subgraph(node.name)
    graph, variables = read_body(source, values)
    for variable, tensor in zip(variables, tensors):
        body.alias(variable, tensor)
    return _body(body, convert_body(body, graph))


def _filled_up(onnx: OnnxModel, rows: str, count: int, row: Value) -> str:
    """Return `rows` with zeros behind them, `count` rows in all."""
    shape = onnx.op("Shape", rows)
    missing = onnx.op("Sub", onnx.ints([count]), onnx.op("Gather", shape, onnx.ints([0])))
    rest = onnx.op("Slice", shape, onnx.ints([1]), onnx.ints([2**31 - 1]), onnx.ints([0]))
    zeros = onnx.op("Expand", onnx.constant(0, row.dtype), onnx.op("Concat", missing, rest, axis=0))
    return onnx.op("Concat", rows, zeros, axis=0)
