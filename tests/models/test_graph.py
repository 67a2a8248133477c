"""A checkpoint's network as data: what comes back is the same, and what a stranger sends costs and runs nothing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile

import pytest
import torch
import torchvision
from conftest import DATA, ROOT
from small_networks import Own, lively
from torch import nn

from chextools.errors import InputError
from chextools.models import assembly, checkpoints, graph, layers, tracing
from chextools.models.checkpoints import Checkpoint
from chextools.models.graph import IMAGES, NetworkGraph, Node, Ref, Stored, Type
from chextools.models.heads import without_activation

SIZE = 32


@pytest.fixture(scope="module")
def own() -> nn.Module:
    torch.manual_seed(0)
    return lively(Own())


@pytest.fixture(scope="module")
def traced(own) -> checkpoints.Traced:
    return checkpoints.traced(own, 1, SIZE)


def test_the_network_comes_back_from_its_text(own, traced):
    made, tensors = traced
    text = graph.dumps(made)
    assert graph.loads(text) == made and tensors.keys() <= own.state_dict().keys() | set(tensors)
    network = assembly.assemble(graph.loads(text), tensors, 1, SIZE)
    for count in (1, 3):
        images = torch.randn(count, 1, SIZE, SIZE)
        torch.testing.assert_close(network(images), own(images), rtol=0, atol=1e-6)
    assert network.default_layer in network.layer_nodes and network.outputs == 3
    assert {"stem", "left", "norm"} <= network.layer_nodes.keys()  # the user's own names


def test_tracing_leaves_the_network_and_the_random_state_as_they_are():
    network = Own().train()
    network.norm.eval()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    tracing.trace(network, 1, SIZE)
    assert network.training and network.act.training and not network.norm.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Standardised(nn.Conv2d):
    """A convolution whose weights a batch norm standardises, as in NFNets and BiT."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.weight.reshape(1, len(self.weight), -1)
        weight = nn.functional.batch_norm(flat, None, None, self.bias, training=True, momentum=0.0, eps=1e-6)
        return nn.functional.conv2d(x, weight.reshape_as(self.weight))


def test_weights_that_a_batch_norm_standardises():
    network = nn.Sequential(Standardised(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    network = lively(network)
    made = assembly.assemble(*checkpoints.traced(network, 1, SIZE), 1, SIZE)
    images = torch.randn(2, 1, SIZE, SIZE)
    torch.testing.assert_close(made(images), network(images), rtol=0, atol=1e-6)
    network[0] = nn.Sequential(Standardised(1, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    with pytest.raises(InputError, match="normalises by the batch that an image is in"):
        checkpoints.traced(network, 1, SIZE)


def test_a_sigmoid_or_softmax_at_the_end_is_taken_off(own, traced):
    made, removed = without_activation(traced[0])
    assert removed == "sigmoid"
    network = assembly.assemble(made, traced[1], 1, SIZE)
    images = torch.randn(2, 1, SIZE, SIZE)
    torch.testing.assert_close(network(images).sigmoid(), own(images))
    assert without_activation(made) == (made, None)


def test_weights_of_a_network_in_training_go_into_the_graph_that_was_traced_once(tmp_path, monkeypatch):
    network = Own()
    checkpoint = Checkpoint("own", ["A", "B", "C"], SIZE, network, mean=(0.5,), std=(0.5,))
    checkpoints.save(tmp_path / "a.pt", checkpoint)
    with torch.no_grad():
        network.head[1].bias += 1
    monkeypatch.setattr(tracing, "trace", None)
    checkpoints.save(tmp_path / "b.pt", checkpoint)
    images = torch.randn(2, 1, SIZE, SIZE)
    a, b = (checkpoints.load(tmp_path / name).model(images) for name in ("a.pt", "b.pt"))
    torch.testing.assert_close(b, network.eval()(images))
    assert (a - b).abs().min() > 0


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda s, x: s.net(x) if x.sum() > 0 else s.net(-x), "depends on the values of its input"),
        (lambda s, x: s.net(torch.fft.fft2(x).real), "uses fft_fft2, which is not of the operators"),
        (lambda s, x: (s.net(x), x), "returns Nx3, Nx1x32x32, not one"),
        (lambda s, x: s.net(x + torch.rand_like(x)), "uses rand_like"),
        (lambda s, x: x.sum() * 0 + s.net.head[1].bias.sum(), "returns no tensor|returns"),
    ],
)
def test_what_cannot_be_traced_is_one_line(forward, said, capsys):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Own()

    Net.forward = forward
    with pytest.raises(InputError, match=said) as caught:
        tracing.trace(Net(), 1, SIZE)
    assert "\n" not in str(caught.value) and capsys.readouterr() == ("", "")


# The default layer


def test_maps_over_positions_that_all_ways_pass(traced):
    made, tensors = traced
    network = assembly.assemble(made, tensors, 1, SIZE)
    found = layers.find_layer(network, torch.randn(1, 1, SIZE, SIZE))
    shapes = {node.name: node.meta.get("shape") for node in network.graph.nodes}
    assert shapes[network.layer_nodes[found]] == (1, 8, 16, 16)


def test_a_network_that_is_off_and_maps_of_one_cell_have_a_layer_too():
    """SqueezeNet on images as small as can be: its last units off, as a little training leaves them; and one cell."""
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=3).eval()
    torch.nn.init.constant_(model.classifier[1].bias, -100)  # before its last ReLU
    single = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 32), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 3))
    for network, expected in ((model, (1, 256, 3, 3)), (single.eval(), (1, 4, 1, 1))):
        assembled = assembly.assemble(*tracing.trace(network, 3, 32), 3, 32)
        found = layers.find_layer(assembled, torch.randn(1, 3, 32, 32))
        shapes = {node.name: node.meta.get("shape") for node in assembled.graph.nodes}
        assert shapes[assembled.layer_nodes[found]] == expected


# What a stranger sends


def small(*nodes: Node, output: str = "y") -> NetworkGraph:
    return NetworkGraph(nodes, output)


def refused(made: NetworkGraph, tensors: dict | None = None) -> str:
    with pytest.raises(InputError) as caught:
        assembly.assemble(graph.loads(graph.dumps(made)), tensors or {}, 1, SIZE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["system", "from_file", "set_.source_Storage", "add_.Tensor", "rand", "item", "nonzero", "int.eval", "_ops"]
)
def test_an_operator_outside_the_list(name):
    assert "not of those that a network may have" in refused(small(Node("y", name, (Ref(IMAGES),))))


def test_circles_names_twice_and_what_is_not_there():
    circle = small(Node("a", "relu", (Ref("y"),)), Node("y", "relu", (Ref("a"),)))
    assert "which is not before it" in refused(circle)
    assert "y twice" in refused(small(Node("y", "relu", (Ref(IMAGES),)), Node("y", "relu", (Ref("y"),))))
    assert "there is no node z" in refused(small(Node("y", "relu", (Ref(IMAGES),)), output="z"))
    assert "takes the tensor w, which it lacks" in refused(small(Node("y", "add.Tensor", (Ref(IMAGES), Stored("w")))))


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("a", "zeros", ((10**6, 10**6),)), Node("y", "add.Tensor", (Ref(IMAGES), Ref("a")))],
        [Node("y", "repeat", (Ref(IMAGES), (1, 10**5, 1, 1)))],
        [Node("y", "expand", (Ref(IMAGES), (10**9, -1, -1, -1)))],
        [Node("y", "pad", (Ref(IMAGES), (10**6, 10**6, 10**6, 10**6)))],
        [Node("y", "arange", (10**12,))],
        [Node("a", "zeros", ((0, 10**9),)), Node("y", "unbind.int", (Ref("a"), 1))],
        [Node("y", "conv2d", (Ref(IMAGES), Stored("w")))],
        [Node("y", "linear", (Ref(IMAGES), Stored("w")))],
        [Node("y", "reshape", (Ref(IMAGES), (3, 5)))],
        [Node("y", "to.dtype", (Ref(IMAGES), Type("float64"), "a", 1, 2))],
        [Node("y", "relu", (Ref(IMAGES),))],
    ],
)
def test_shapes_that_lie_or_ask_for_memory(nodes):
    """Found without a number of them: the test would need terabytes."""
    refused(small(*nodes), {"w": torch.zeros(2, 7, 3, 3)})


def test_a_tensor_that_stands_for_more_numbers_than_there_are():
    made = small(Node("y", "linear", (Ref(IMAGES), Stored("w"))))
    assert "more numbers than there are" in refused(made, {"w": torch.zeros(1).expand(10**6, 10**6)})
    assert "not a plain one" in refused(made, {"w": torch.zeros(3, 3).to_sparse()})


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        '{"nodes": []}',
        '{"nodes": [["y"]]}',
        '{"nodes": [["y", "relu", [NaN]]], "output": "y", "layers": {}}',
        "[" * 100_000,
        '{"nodes": [["y", "relu", [{"node": 3}]]], "output": "y", "layers": {}}',
        '{"nodes": [["y", "relu", [[[[[1]]]]]]], "output": "y", "layers": {}}',
        '{"nodes": [["y", "relu", [{"type": "object"}]]], "output": "y", "layers": {}}',
        '{"nodes": [["y", "relu", [99999999999999999999999]]], "output": "y", "layers": {}}',
        json.dumps({"nodes": [[f"n{k}", "relu", []] for k in range(graph.MAX_NODES + 1)], "output": "n0"}),
    ],
    ids=range(12),
)
def test_a_text_that_is_no_graph(text):
    with pytest.raises(InputError) as caught:
        graph.loads(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.fixture
def saved(tmp_path, traced):
    path = tmp_path / "c.pt"
    checkpoints.save(
        path, Checkpoint("own", ["A", "B"], SIZE, None, (0.5,), (0.5,), columns=[(2, 0), (1, None)], traced=traced)
    )
    return path


def test_what_goes_before_and_after_the_network_is_kept(saved, own):
    found = checkpoints.load(saved)
    output = own(torch.randn(2, 1, SIZE, SIZE))
    assert found.channels == 1 and found.differences() == {"A"} and found.by_task() == [(2, 0), (1, None)]
    torch.testing.assert_close(found.logits(output), torch.stack([output[:, 2] - output[:, 0], output[:, 1]], 1))
    found.points = {"B": 0.1}
    plain = output[:, 1].sigmoid()
    expected = torch.where(plain < 0.1, plain / 0.2, 1 - (1 - plain) / 1.8)
    torch.testing.assert_close(found.scores(output)[:, 1], expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": [[0, None], [3, None]]},
        {"columns": [[0, None]]},
        {"columns": [[0, 0], [1, None]]},
        {"columns": ["ab", [True, None]]},
        {"mean": [0.5, 0.5]},
        {"std": [0.0]},
        {"std": [float("nan")]},
        {"size": 1 << 20},
        {"fit": "stretch"},
        {"points": {"A": 2.0}},
        {"points": {"Z": 0.5}},
        {"graph": "{}"},
        {"state_dict": {}},
    ],
    ids=str,
)
def test_a_checkpoint_that_contradicts_itself(saved, changes):
    torch.save(torch.load(saved, weights_only=True) | changes, saved)
    with pytest.raises(InputError) as caught:
        checkpoints.load(saved)
    assert str(caught.value).startswith(str(saved)) and "\n" not in str(caught.value)


def test_a_compressed_archive_is_refused_before_it_is_read(saved, tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="compressed"):
        checkpoints.load(bomb)


def test_a_pipe_is_no_checkpoint(cli, tmp_path):
    import os

    os.mkfifo(tmp_path / "c.pt")
    result = cli("chex-predict", DATA / "cxr/valid.csv", "--checkpoint", tmp_path / "c.pt")
    assert result.code == 1 and "not a regular file" in result.err and result.out == ""


def test_applying_one_imports_nobody_elses_code(saved, tmp_path):
    """Neither the library nor the file that the network came from, nor torch's compiler."""
    image = next((DATA / "cxr").rglob("*.jpg"))
    script = f"""
import sys
from chextools.cli import cam, predict
for command, more in ((predict, []), (cam, ["-o", {str(tmp_path / "maps")!r}, "--method", sys.argv[1]])):
    sys.argv[1:] = [{str(image)!r}, "--checkpoint", {str(saved)!r}, "--device", "cpu", "-q", *more]
    try: command.command.main(standalone_mode=False)
    except SystemExit as stop: assert not stop.code, stop.code
    sys.argv[1:] = [more[-1] if more else "deeplift"]
theirs = {{"torchvision", "timm", "torchxrayvision", "transformers", "sympy", "torch._dynamo"}}
sys.exit(", ".join(sorted(theirs & sys.modules.keys())) or 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, "deeplift"], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list((tmp_path / "maps").glob("*.npz"))


def test_format_is_data_alone(saved):
    content = torch.load(saved, weights_only=True)
    assert content["format"] == checkpoints.FORMAT and json.loads(content["graph"])["output"]
    assert dataclasses.replace(checkpoints.load(saved), model=None).traced[0] == graph.loads(content["graph"])
