"""The operators that a graph may name, and what shape each makes: against torch's own, on real numbers."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from chextools.errors import InputError
from chextools.models import operators, shapes

ATEN = torch.ops.aten
torch.manual_seed(0)
X, Y = torch.rand(2, 4, 6, 5), torch.rand(4, 1, 5)
WEIGHT, MATRIX = torch.rand(8, 4, 3, 2), torch.rand(3, 5)
OF_CHANNELS = torch.rand(4)
ONE_INPUT: list[tuple[tuple, str]] = [  # operators by their arguments beside the first
    (
        (),
        "relu relu6 silu gelu mish sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu selu celu softplus "
        "neg abs square sqrt rsqrt exp reciprocal erf clone zeros_like ones_like contiguous",
    ),
    ((1,), "softmax.int log_softmax.int"),
    (([1, 2],), "flip amax amin mean.dim sum.dim_IntList"),
    (([-1], True), "amax amin mean.dim sum.dim_IntList"),
    ((2.5,), "clamp pow.Tensor_Scalar mul.Scalar add.Scalar sub.Scalar div.Scalar eq.Scalar gt.Scalar le.Scalar"),
    (
        (Y,),
        "add.Tensor sub.Tensor mul.Tensor div.Tensor maximum minimum eq.Tensor ne.Tensor lt.Tensor le.Tensor "
        "gt.Tensor ge.Tensor",
    ),
    (([3, 2],), "adaptive_avg_pool2d avg_pool2d new_zeros new_ones"),
    (([1, 2, 0, 3],), "pad constant_pad_nd"),
    (([-1, 0],), "pad constant_pad_nd"),
]
CASES: list[tuple] = [(name, (X, *more)) for more, names in ONE_INPUT for name in names.split()]
CASES += [
    ("add.Tensor", (X, torch.ones(6, 1, dtype=torch.int64))),
    ("div.Tensor", (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64))),
    ("mean", (X,)),
    ("sum", (X,)),
    ("flip", (X, [0])),
    ("roll", (X, [1, 2], [0, 3])),
    ("cat", ([X, X[:, :1], X[:, :3]], 1)),
    ("cat", ([X, X], -1)),
    ("stack", ([X, X, X], -1)),
    ("conv2d", (X, WEIGHT)),
    ("conv2d", (X, WEIGHT, torch.rand(8), [2, 1], [1, 3], [2, 1])),
    ("conv2d", (X, WEIGHT[:, :2], None, [2], [1], [1], 2)),
    ("conv2d.padding", (X, WEIGHT, None, [1, 1], "same")),
    ("conv2d.padding", (X, WEIGHT, None, [2, 1], "valid")),
    *(("max_pool2d", (X, [3], [2], [1], [1], ceil)) for ceil in (False, True)),
    ("max_pool2d", (X, [2, 2], [3, 3], [1, 1], [2, 2], True)),
    *(("avg_pool2d", (X, [2, 3], [2, 2], [1, 1], ceil)) for ceil in (False, True)),
    ("linear", (X, MATRIX)),
    ("linear", (X, MATRIX, torch.rand(3))),
    ("matmul", (X, torch.rand(4, 5, 7))),
    ("bmm", (X[0], torch.rand(4, 5, 7))),
    ("mm", (X[0, 0], torch.rand(5, 7))),
    ("scaled_dot_product_attention", (X, torch.rand(2, 4, 9, 5), torch.rand(2, 4, 9, 3))),
    ("batch_norm", (X, *[OF_CHANNELS] * 4, False, 0.1, 1e-5, False)),
    ("layer_norm", (X, [6, 5])),
    ("group_norm", (X, 2, OF_CHANNELS, OF_CHANNELS)),
    ("masked_fill.Scalar", (X, Y > 0.5, 0.0)),
    ("slice_scatter", (X, X[:, 1:3], 1, 1, 3)),
    ("select_scatter", (X, X[:, 1], 1, 2)),
]


def given(function, args: tuple, device: str) -> dict:
    """The arguments by ATen's names, tensors moved to a device; defaults where none is given."""

    def moved(value):
        if isinstance(value, list):
            return [moved(each) for each in value]
        return value.to(device) if isinstance(value, torch.Tensor) else value

    named = {each.name: each.default_value for each in function._schema.arguments}  # noqa: SLF001 - has no other name
    return named | dict(zip(named, map(moved, args)))


def function_of(name: str):
    family, _, overload = name.partition(".")
    return getattr(getattr(ATEN, family), overload or "default")


@pytest.mark.parametrize("name,args", CASES, ids=[f"{name}-{k}" for k, (name, _) in enumerate(CASES)])
def test_shapes_and_types_are_torchs(name, args):
    function = function_of(name)
    expected, found = function(*args), shapes.shape_of(operators.base(name), given(function, args, "meta"))
    assert found.device.type == "meta"
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_every_rule_is_among_the_cases():
    assert {operators.base(name) for name, _ in CASES} == set(shapes.RULES)


@pytest.mark.parametrize(
    "name,args",
    [
        ("add.Tensor", (X, torch.rand(3))),
        ("cat", ([X, X[..., :2]], 1)),
        ("stack", ([X, X[:1]], 0)),
        ("conv2d", (X, torch.rand(8, 3, 3, 2))),
        ("conv2d", (X, WEIGHT, torch.rand(7))),
        ("conv2d", (X, torch.rand(8, 4, 9, 9))),
        ("max_pool2d", (X, [7])),
        ("linear", (X, torch.rand(3, 4))),
        ("linear", (X, MATRIX, torch.rand(2))),
        ("matmul", (X, X)),
        ("layer_norm", (X, [5, 6])),
        ("group_norm", (X, 3)),
        ("batch_norm", (X, *[torch.rand(3)] * 4, False, 0.1, 1e-5, False)),
        ("constant_pad_nd", (X, [-3, -3])),
        ("masked_fill.Scalar", (X, torch.ones(4) > 0, 0.0)),
    ],
)
def test_what_torch_refuses_is_refused(name, args):
    function = function_of(name)
    with pytest.raises(RuntimeError):
        function(*args)
    with pytest.raises(ValueError, match="."):
        shapes.shape_of(operators.base(name), given(function, args, "meta"))


def test_where_there_is_no_rule_torch_is_asked():
    assert shapes.shape_of("einsum", {}) is None
    assert shapes.shape_of("pow", {"self": X, "exponent": X}) is None


@pytest.mark.parametrize("name", ["conv2d", "add.Tensor", "split.Tensor", "softmax.int", "_to_copy"])
def test_an_operator_is_named_as_in_aten(name):
    function = operators.resolved(name)
    assert function is function_of(name) and operators.name_of(function) == name


@pytest.mark.parametrize("name,value", [("int.add", 9), ("int.sub", 5), ("int.mul", 14), ("int.floordiv", 3)])
def test_whole_numbers_are_pythons(name, value):
    assert operators.resolved(name)(7, 2) == value
    assert operators.name_of(operators.resolved(name)) == name
    assert operators.resolved("getitem") is operator.getitem and operators.name_of(operator.getitem) == "getitem"


@pytest.mark.parametrize(
    "name,why",
    [
        ("add_.Tensor", "not of those that a network may have"),
        ("add.out", "writes to what it is given"),
        ("div.out_mode", "writes to what it is given"),
        ("rand", "not of those that a network may have"),
        ("nonzero", "not of those that a network may have"),
        ("__class__", "not of those that a network may have"),
        ("int.pow", "not of those that a network may have"),
        ("conv2d.newer", "lacks"),
        ("x" * 10_000, "not of those"),
    ],
)
def test_what_writes_draws_or_is_unknown_is_refused_in_one_line(name, why):
    with pytest.raises(InputError, match=why) as error:
        operators.resolved(name)
    assert len(str(error.value)) < 200


def test_every_function_of_the_list_is_torchs_and_none_that_writes_is_resolved():
    for family in sorted(operators.ALLOWED):
        for overload in getattr(ATEN, family).overloads():
            name = family if overload == "default" else f"{family}.{overload}"
            if getattr(getattr(ATEN, family), overload)._schema.is_mutable:  # noqa: SLF001 - as above
                with pytest.raises(InputError, match="writes to what it is given"):
                    operators.resolved(name)
            else:
                assert operators.resolved(name) is function_of(name)


def test_what_a_node_calls():
    graph = fx.Graph()
    x = graph.placeholder("x")
    calls = [graph.call_function(ATEN.add.Tensor, (x, x)), graph.call_function(operator.add, (x, x))]
    calls.append(graph.call_method("permute", (x, 1, 0)))
    assert [operators.called(node) for node in calls] == ["add", "add", "permute"]
