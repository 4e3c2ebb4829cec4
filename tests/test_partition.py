"""Partitioning, on graphs made for it and on random ones."""

from __future__ import annotations

from collections.abc import Iterator

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import run_mxnet

import mxtrt
from mxtrt.errors import BadOption
from mxtrt.graph import Graph, Node
from mxtrt.options import Options, read_options
from mxtrt.partition import Partition, partition
from mxtrt.symbol import read_symbol
from mxtrt.symbol_writer import write_symbol

LEFT = "sin"  # the operator that the tests exclude
UNARY = ["relu", "tanh", "sigmoid"]


def plan(symbol: mx.sym.Symbol, **options: object) -> tuple[Graph, Partition]:
    checked: Options = read_options(
        **{"exclude_ops": [LEFT], "min_subgraph_size": 1, **options}  # type: ignore[arg-type]
    )
    graph = read_symbol(symbol, None, checked)
    return graph, partition(graph, checked)


def names(found: Partition) -> list[list[str]]:
    return [[node.name for node in part.nodes] for part in found.parts]


def left(x: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return mx.sym.sin(x, name=name)


def kept(x: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return mx.sym.Activation(x, act_type="tanh", name=name)


def test_a_chain_is_one_part() -> None:
    _, found = plan(kept(kept(mx.sym.var("x"), "a"), "b"))
    assert (names(found), found.left) == ([["a", "b"]], {})


def test_a_node_that_stays_divides() -> None:
    _, found = plan(kept(left(kept(mx.sym.var("x"), "a"), "stays"), "b"))
    assert names(found) == [["a"], ["b"]]
    assert list(found.left.values()) == ["exclude_ops names sin"]


def test_a_part_does_not_wait_for_its_own_output() -> None:
    a = kept(mx.sym.var("x"), "a")
    _, found = plan(kept(a + left(a, "stays"), "b"))
    assert names(found)[0] == ["a"]
    assert "b" in names(found)[1]


def test_two_parts_do_not_wait_for_each_other() -> None:
    # a1 -> b1 and b2 -> a2 with nodes that stay between: {a1, a2} and {b1, b2} would be a cycle
    x, y = mx.sym.var("x"), mx.sym.var("y")
    a1, b2 = kept(x, "a1"), kept(y, "b2")
    b1, a2 = kept(left(a1, "s1"), "b1"), kept(left(b2, "s2"), "a2")
    graph, found = plan(mx.sym.Group([b1 + b2, a1 + a2]))
    check_partition(graph, found)


def test_independent_towers_become_one_part() -> None:
    towers = [kept(kept(mx.sym.var(f"x{i}"), f"a{i}"), f"b{i}") for i in range(3)]
    _, found = plan(mx.sym.Group(towers))
    assert len(found.parts) == 1


def test_small_parts_stay() -> None:
    symbol = kept(left(kept(kept(mx.sym.var("x"), "a"), "b"), "stays"), "c")
    _, found = plan(symbol, min_subgraph_size=2)
    assert names(found) == [["a", "b"]]
    assert "its part would have 1 node, fewer than min_subgraph_size=2" in found.left.values()


def test_what_reads_no_input_stays() -> None:
    graph, found = plan(left(mx.sym.zeros((2, 2), name="zeros"), "stays"))
    assert not found.parts
    assert len(found.left) == len(graph.nodes)


def test_exclude_names() -> None:
    symbol = kept(kept(mx.sym.var("x"), "first"), "second")
    _, found = plan(symbol, exclude_nodes=["first"])
    assert names(found) == [["second"]]
    with pytest.raises(BadOption, match="has no 'frist'; did you mean 'first'"):
        plan(symbol, exclude_nodes=["frist"])
    with pytest.raises(BadOption, match="has no 'Convolutoin'; did you mean 'Convolution'"):
        plan(symbol, exclude_ops=["Convolutoin"])
    _, found = plan(mx.sym.identity(symbol), exclude_ops=["identity", "Convolution"])
    assert names(found) == [["first", "second"]]  # MXNet's own name of identity is _copy


def check_partition(graph: Graph, found: Partition) -> None:
    """Each node stands in exactly one place, and no part waits for its own output."""
    placed = [node for part in found.parts for node in part.nodes] + list(found.left)
    assert sorted(map(id, placed)) == sorted(map(id, graph.nodes))
    unit = {node: part for part in found.parts for node in part.nodes}
    needs: dict[object, set[object]] = {}
    for node in graph.nodes:
        own = unit.get(node, node)
        before = (graph.producer[v] for v in node.inputs if v in graph.producer)
        needs.setdefault(own, set()).update({unit.get(b, b) for b in before} - {own})
    done: set[object] = set()
    while len(done) < len(needs):
        ready = {own for own, wanted in needs.items() if own not in done and wanted <= done}
        assert ready, "parts wait for each other"
        done |= ready
    for part in found.parts:
        read = {v for node in part.nodes for v in node.inputs}
        made = {v for node in part.nodes for v in node.outputs}
        assert set(part.inputs) == {v for v in read - made if not v.is_param}
        assert set(part.outputs) == {v for v in made if _is_read_outside(graph, part.nodes, v)}


def _is_read_outside(graph: Graph, nodes: tuple[Node, ...], value: object) -> bool:
    return value in graph.heads or any(
        reader not in nodes for reader in graph.consumers.get(value, ())
    )


@st.composite
def random_symbols(draw: st.DrawFn) -> mx.sym.Symbol:
    """A random graph of unary and binary operators, some of which stay, with random heads."""
    values = [mx.sym.var("x"), mx.sym.var("y")]
    for index in range(draw(st.integers(1, 14))):
        x = values[draw(st.integers(0, len(values) - 1))]
        y = values[draw(st.integers(0, len(values) - 1))]
        kind = draw(st.sampled_from(["unary", "binary", "stays", "split"]))
        if kind == "unary":
            values.append(mx.sym.Activation(x, act_type=draw(st.sampled_from(UNARY))))
        elif kind == "binary":
            values.append(mx.sym.elemwise_add(x, y, name=f"add{index}"))
        elif kind == "stays":
            values.append(left(x, f"stays{index}"))
        else:
            halves = mx.sym.SliceChannel(x, num_outputs=2, axis=1, name=f"split{index}")
            values.append(mx.sym.concat(halves[1], halves[0], dim=1, name=f"swap{index}"))
            values.append(mx.sym.concat(halves[1], halves[1], dim=1, name=f"twice{index}"))
    picks = st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=4)
    return mx.sym.Group([values[i] for i in draw(picks)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(random_symbols(), st.integers(1, 3))
def test_random_graphs(symbol: mx.sym.Symbol, min_subgraph_size: int) -> None:
    options = {"exclude_ops": [LEFT], "min_subgraph_size": min_subgraph_size}
    graph, found = plan(symbol, **options)
    check_partition(graph, found)
    if not found.parts:
        return
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal((2, 4)).astype("float32") for n in symbol.list_arguments()}
    optimized, _ = mxtrt.optimize(symbol, **options)
    assert optimized.list_outputs() == symbol.list_outputs()
    for want, have in zip(run_mxnet(symbol, arrays), run_mxnet(optimized, arrays)):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    mxtrt.release(optimized)


def test_a_graph_written_without_parts_is_the_same_model() -> None:
    symbol = kept(mx.sym.SliceChannel(mx.sym.var("x"), num_outputs=2, name="s")[1], "a")
    graph, _ = plan(symbol)
    assert write_symbol(graph, {}).tojson() == symbol.tojson()


def deep(depth: int) -> Iterator[mx.sym.Symbol]:
    x = mx.sym.var("x")
    for i in range(depth):
        x = left(kept(x, f"k{i}"), f"l{i}") if i % 5 == 4 else kept(x, f"k{i}")
        yield x


def test_a_deep_graph_takes_no_recursion() -> None:
    *_, symbol = deep(3000)
    graph, found = plan(symbol)
    assert len(found.parts) == 600
    assert write_symbol(graph, {}).list_outputs() == symbol.list_outputs()
