"""Networks, weights from elsewhere, and checkpoints: what fits, what is said of it, and what is refused."""

from __future__ import annotations

import json
import logging
import pickle

import pytest
import torch
from conftest import need_module

from chextools.errors import InputError
from chextools.models import architectures, checkpoints, names, weights

# One of each family of heads; the small one of each
FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
)
SMALL = "shufflenet_v2_x0_5"


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_family_has_a_head_of_the_outputs_asked_for(arch):
    with torch.device("meta"):
        own, other = architectures.build(arch, 5), architectures.build(arch, 6).state_dict()
    name, head = architectures.head(own)
    assert (getattr(head, "out_features", None) or head.out_channels) == 5
    differing = {key for key, value in own.state_dict().items() if other[key].shape != value.shape}
    assert differing == {f"{name}.{key}" for key in head.state_dict()}


def test_architectures_are_torchvisions_classifiers():
    known = architectures.classifiers()
    assert set(FAMILIES) <= set(known) and "fasterrcnn_resnet50_fpn" not in known
    with pytest.raises(InputError, match="unknown architecture 'densenet12'.*did you mean 'densenet121'"):
        architectures.build("densenet12", 1)
    with pytest.raises(InputError, match="vit_b_32 cannot take images of 100 x 100"):
        architectures.build("vit_b_32", 1, 100)


def test_names_are_known_without_importing_them():
    import torchvision

    if names.VERSION == tuple(map(int, torchvision.__version__.split(".")[:2])):
        assert list(names.TORCHVISION) == sorted(architectures.classifiers())
    with pytest.raises(InputError, match="unknown architecture 'densenet12'.*did you mean 'densenet121'"):
        architectures.check_name("densenet12")


def test_names_of_timm_are_known_where_it_is_installed():
    need_module("timm")
    architectures.check_name("timm/inception_v4")


def test_a_newer_torchvision_may_know_more(monkeypatch):
    monkeypatch.setattr(names, "VERSION", (0, 1))
    architectures.check_name("densenet12")


def small(outputs: int = 2, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architectures.build(SMALL, outputs)


def saved(tmp_path, value: object) -> str:
    torch.save(value, tmp_path / "w.pt")
    return str(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"module." + k: v for k, v in s.items()},
        lambda s: {"state_dict": {"model.module." + k: v for k, v in s.items()}, "epoch": 3},
        lambda s: {"model": {"net.backbone." + k: v for k, v in s.items()}},
    ],
)
def test_weights_are_found_under_any_prefix_but_the_head_stays(tmp_path, caplog, wrap):
    source, target = small(seed=1), small(seed=2)
    before = target.fc.weight.clone()
    fitted = weights.load(target, saved(tmp_path, wrap(source.state_dict())), SMALL)
    assert set(fitted.kept) == {"fc.weight", "fc.bias"}
    assert torch.equal(target.conv5[0].weight, source.conv5[0].weight)
    assert torch.equal(target.fc.weight, before)
    assert "not in it, so left as drawn: fc.weight, fc.bias" in caplog.text


def test_old_densenet_keys_are_read(tmp_path):
    source = architectures.build("densenet121", 2).state_dict()
    old = {
        k.replace("norm1", "norm.1").replace("conv1", "conv.1").replace("norm2", "norm.2").replace("conv2", "conv.2")
        if "denselayer" in k
        else k: v
        for k, v in source.items()
    }
    assert sum(a != b for a, b in zip(old, source)) > 500
    target = architectures.build("densenet121", 2)
    fitted = weights.load(target, saved(tmp_path, old), "densenet121")
    assert set(fitted.kept) == {"classifier.weight", "classifier.bias"}
    assert set(fitted.unused) == {"classifier.weight", "classifier.bias"}


def test_imagenet_weights_come_from_torch_home_where_they_are(tmp_path, monkeypatch):
    """Downloaded once, they need no network any more; without one, the error is one line."""
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = architectures.build(SMALL, 1000)
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(source.state_dict(), folder / ShuffleNet_V2_X0_5_Weights.DEFAULT.url.rsplit("/", 1)[1])
    target = small()
    assert set(weights.load(target, "imagenet", SMALL).kept) == {"fc.weight", "fc.bias"}
    assert torch.equal(target.conv5[0].weight, source.conv5[0].weight)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(InputError, match="imagenet: the weights of resnet18 cannot be downloaded: no network"):
        weights.load(architectures.build("resnet18", 2), "imagenet", "resnet18")


def test_weights_that_fit_nothing_are_refused(tmp_path):
    other = {f"layer{k}.weight": torch.zeros(3) for k in range(4)}
    with pytest.raises(InputError, match="none of the backbone's .* weights is in it.*layer0.weight"):
        weights.load(small(), saved(tmp_path, other), SMALL)


def test_which_keys_did_not_fit_is_said(tmp_path, caplog):
    state = small(seed=1).state_dict()
    state["conv1.0.weight"] = torch.zeros(1)
    state["extra"] = torch.zeros(1)
    caplog.set_level(logging.INFO)
    fitted = weights.load(small(), saved(tmp_path, state), SMALL)
    assert "conv1.0.weight" in fitted.kept and {"extra", "conv1.0.weight"} <= set(fitted.unused)
    total = len(fitted.loaded) + len(fitted.kept)
    assert f"loaded {len(fitted.loaded)} of {total} weights" in caplog.text


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: None, "No such file or directory"),
        (lambda p: p.write_bytes(b""), "an empty file"),
        (lambda p: p.write_bytes(b"hello"), "not a checkpoint"),
        (lambda p: p.write_bytes(pickle.dumps(Evil())), "not a checkpoint"),
        (lambda p: torch.save(Evil(), p), r"more than tensors and plain values.*chex-import makes a checkpoint"),
        (
            lambda p: torch.jit.save(torch.jit.script(torch.nn.ReLU()), p),
            "or TorchScript, not a checkpoint; chex-import",
        ),
        (lambda p: torch.save([1], p), "holds a list"),
        (lambda p: torch.save({"state_dict": {}}, p), "not a checkpoint"),
        (lambda p: p.write_bytes(whole(p)[:-100]), "a truncated checkpoint"),
        (lambda p: changed(p, format=checkpoints.FORMAT_1, arch="resnet18"), "its weights are not those of resnet18"),
        (lambda p: changed(p, format=checkpoints.FORMAT_1, arch="nosuch"), "unknown architecture"),
        (lambda p: changed(p, tasks=[]), "without usable tasks"),
        (lambda p: changed(p, size="big"), "without a usable 'size'"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, capsys, make, reason):
    make(tmp_path / "c.pt")
    with pytest.raises(InputError, match=reason) as caught:
        checkpoints.load(tmp_path / "c.pt")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{tmp_path}/c.pt: ")
    assert "executed" not in capsys.readouterr().out


def whole(path) -> bytes:
    checkpoints.save(path, checkpoints.Checkpoint(SMALL, ["Edema", "Fracture"], 32, small()))
    return path.read_bytes()


def changed(path, **values) -> None:
    whole(path)
    torch.save(torch.load(path, weights_only=True) | values, path)


def test_a_checkpoint_of_another_architecture_is_refused_where_one_is_asked_for(tmp_path):
    whole(tmp_path / "c.pt")
    with pytest.raises(InputError, match="a checkpoint of shufflenet_v2_x0_5, not of resnet18"):
        checkpoints.load(tmp_path / "c.pt", arch="resnet18")


def test_a_checkpoint_holds_all_that_was_saved(tmp_path):
    network = small(4)
    policy = {"Edema": "multiclass", "Fracture": "ones"}
    made = checkpoints.Checkpoint(
        SMALL,
        ["Edema", "Fracture"],
        32,
        network,
        policy=policy,
        step=7,
        metrics={"auroc": {"Edema": 0.5}},
        versions=checkpoints.versions(),
    )
    made.sha256 = checkpoints.save(tmp_path / "c.pt", made)
    found = checkpoints.load(tmp_path / "c.pt")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(found.model(images), network.eval()(images))
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    graph, tensors = found.traced
    assert graph.layer == "stage3"  # the last maps of more than one pixel, of images of 32
    assert tensors.keys() <= network.state_dict().keys()
    read = {"model": None, "traced": None, "columns": None}
    assert found.columns == made.by_task() and vars(found) | read == vars(made) | read


def test_a_checkpoint_of_format_1_is_read(tmp_path):
    """It names torchvision's architecture, and has all of the state dict in place of a graph."""
    network = small()
    content = checkpoints.content(checkpoints.Checkpoint(SMALL, ["Edema", "B"], 32, network, step=3))
    for key in ("graph", "columns", "points", "fit", "resample", "source"):
        del content[key]
    torch.save(content | {"format": checkpoints.FORMAT_1, "state_dict": network.state_dict()}, tmp_path / "c.pt")
    found = checkpoints.load(tmp_path / "c.pt")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(found.model(images), network.eval()(images)) and found.step == 3
    again = checkpoints.load(tmp_path / "c.pt")
    checkpoints.save(tmp_path / "d.pt", again)
    torch.testing.assert_close(checkpoints.load(tmp_path / "d.pt").model(images), network(images), rtol=0, atol=1e-6)


def test_a_multiclass_score_is_the_softmax_over_positive_and_negative():
    checkpoint = checkpoints.Checkpoint(SMALL, ["A", "B", "C"], 32, None, policy={"B": "multiclass"})
    output = torch.randn(4, 5)
    scores = checkpoint.scores(output)
    torch.testing.assert_close(scores[:, 1], output[:, 1:3].softmax(dim=1)[:, 1])  # the uncertain one plays no part
    torch.testing.assert_close(scores[:, [0, 2]], output[:, [0, 4]].sigmoid())
    assert checkpoint.by_task() == [(0, None), (2, 1), (4, None)] and checkpoint.differences() == {"B"}


def test_an_ensemble_names_checkpoints_by_task(tmp_path):
    whole(tmp_path / "a.pt")
    whole(tmp_path / "b.pt")
    by_task = {"Lung Opacity": ["a.pt", "b.pt"], "Edema": ["b.pt"]}
    (tmp_path / "ensemble.json").write_text(json.dumps({"tasks": by_task}))
    a, b = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    path = str(tmp_path / "ensemble.json")
    assert checkpoints.read_ensemble(path) == {"Airspace Opacity": [a, b], "Edema": [b]}
    assert checkpoints.select([path]) == {a: ["Airspace Opacity"], b: ["Airspace Opacity", "Edema"]}
    assert checkpoints.select([path, a])[a] is None
    for text, reason in (("{", "truncated JSON"), ("[]", 'no "tasks"'), ('{"tasks": {"A": []}}', "a list of")):
        (tmp_path / "ensemble.json").write_text(text)
        with pytest.raises(InputError, match=reason):
            checkpoints.read_ensemble(path)
