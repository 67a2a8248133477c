"""Methods that attribute to the input: integrated gradients, DeepLIFT, relevance propagation, SmoothGrad."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import need_module
from test_canonical import network, one_thread  # noqa: F401
from test_saliency import TASKS, close, images
from torch import nn

from chextools.errors import InputError
from chextools.models.chunks import in_chunks
from chextools.saliency import baselines, floors, lrp, smoothgrad
from chextools.saliency import deeplift as deeplift_module
from chextools.saliency.completeness import TOLERANCE, deltas
from chextools.saliency.deeplift import check
from chextools.saliency.deeplift import maps as deeplift
from chextools.saliency.ig import maps as integrated_gradients
from chextools.saliency.network import Network, Once
from chextools.saliency.occlusion import maps as occlude

STUDY_NETS = ["densenet121", "resnet152", "inception_v3", "timm/inception_v4"]


def calibrated(arch: str) -> nn.Module:
    """A network whose BatchNorm has seen images, as a trained one's has: logits neither die away nor explode."""
    if arch.startswith("timm/"):
        need_module("timm")
    model = network(arch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all it sees
            module.reset_running_stats()
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.train()(images(8))
    return model.eval()


def plain_cnn() -> nn.Module:
    """Nothing used twice, no windows that overlap, no maximum next to a ReLU: where captum is right."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


def on(model: nn.Module, layer: str = "0") -> Network:
    """A network by its parts' names, none of which is a known family's."""
    return Network(model, layer)


# Integrated gradients


@pytest.mark.parametrize("baseline", [0.0, "mean"])
def test_integrated_gradients_are_captums(baseline):
    captum = need_module("captum.attr")
    model = network("resnet18").double()
    batch = images(size=64).double()
    ours = integrated_gradients(Network(model), batch, TASKS, steps=9, baseline=baseline, batch=4)
    start = baselines.of(baseline, batch).expand_as(batch)
    theirs = [
        captum.IntegratedGradients(model).attribute(batch, start, target=task, n_steps=9).sum(1) for task in TASKS
    ]
    close(ours, torch.stack(theirs, 1), 1e-6)  # captum keeps its points in single precision


def test_the_delta_falls_with_steps():
    net = Network(network("densenet121"))
    batch = images(1, 64)
    shares = []
    for steps in (4, 32, 256):
        maps = integrated_gradients(net, batch, TASKS, steps=steps, batch=32)
        delta, change = deltas(net, batch, TASKS, maps, 0.0)
        shares.append(float((delta / change).abs().median()))
    assert shares[0] > shares[1] > shares[2]


def test_integrated_gradients_of_a_smooth_network_are_complete():
    """Where gradients do not jump a few points are enough: the rule is exact for polynomials."""
    torch.manual_seed(0)
    net = on(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).double())
    batch = images(2, 8).double()
    delta, change = deltas(net, batch, TASKS, integrated_gradients(net, batch, TASKS, steps=20), 0.0)
    assert (delta / change).abs().max() < 1e-6


# DeepLIFT


@pytest.mark.parametrize("arch", STUDY_NETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_deeplift_is_complete_on_the_studys_nets(arch, dtype, tolerance):
    net = Network(calibrated(arch).to(dtype))
    batch = images(1).to(dtype)
    check(net)
    for baseline in (0.0, "blur"):
        delta, change = deltas(net, batch, TASKS, deeplift(net, batch, TASKS, baseline=baseline), baseline)
        assert (delta / change).abs().max() < tolerance


@pytest.mark.parametrize("module", [deeplift_module, lrp])
def test_work_that_a_gpu_is_not_asked_about_changes_nothing(module, monkeypatch):
    net, batch = Network(calibrated("densenet121").double()), images(1, 64).double()
    asked = module.maps(net, batch, TASKS)
    monkeypatch.setattr(module, "may_hold", lambda flags: True)
    close(module.maps(net, batch, TASKS), asked, 1e-12)


@pytest.mark.parametrize("make,size", [(lambda: Network(network("densenet121")), 64), (lambda: on(plain_cnn()), 24)])
def test_only_what_cannot_be_negative_is_spared_lrps_negative_parts(make, size, monkeypatch):
    net, batch = make(), images(1, size)
    sparing = lrp.maps(net, batch, TASKS)
    monkeypatch.setattr(lrp, "may_hold", lambda flags: True)
    monkeypatch.setattr(lrp._EpsilonPlus, "_is_never_negative", lambda *_: False)
    close(sparing, lrp.maps(net, batch, TASKS), 1e-6)


def test_deeplift_is_captums_where_that_is_right():
    captum = need_module("captum.attr")
    model = plain_cnn().double()
    batch = images(3, 24).double()
    ours = deeplift(on(model), batch, TASKS, baseline=0.0)
    for k, task in enumerate(TASKS):
        theirs = captum.DeepLift(copy.deepcopy(model)).attribute(batch, torch.zeros_like(batch), target=task)
        close(ours[:, k], theirs.sum(1).detach(), 1e-10)


def test_captums_deeplift_is_not_complete_on_densenet():
    """The reason for our own."""
    captum = need_module("captum.attr")
    model = network("densenet121")
    batch = images(1)
    try:
        theirs = captum.DeepLift(copy.deepcopy(model)).attribute(batch, torch.zeros_like(batch), target=0)
    except Exception:
        return  # so it is where it raises
    with torch.no_grad():
        change = float((model(batch) - model(torch.zeros_like(batch)))[0, 0])
    assert abs(float(theirs.sum()) - change) > 0.1 * abs(change)


def test_deeplift_with_the_image_as_its_baseline_is_0_not_nan():
    net = Network(network("resnet18"))
    batch = torch.zeros(1, 3, 64, 64)
    assert torch.equal(deeplift(net, batch, TASKS, baseline=0.0), torch.zeros(1, 3, 64, 64))


# Relevance propagation


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "vgg11_bn"])
def test_lrp_with_a_vanishing_epsilon_is_gradient_times_input(arch):
    net = Network(network(arch).double())
    batch = images(2, 96).double()
    expected = lrp.maps(net, batch, TASKS, rule="gradient-input")
    close(lrp.maps(net, batch, TASKS, rule="epsilon", epsilon=1e-12), expected, 1e-6)  # few outputs are near 0


def test_gradient_times_input_is_what_autograd_says():
    model = network("resnet18").double()
    batch = images(2, 64).double().requires_grad_()
    gradients = [torch.autograd.grad(model(batch)[:, task].sum(), batch)[0] for task in TASKS]
    expected = torch.stack([(g * batch).sum(1) for g in gradients], 1).detach()
    close(lrp.maps(Network(model), batch.detach(), TASKS, rule="gradient-input"), expected, 1e-10)


def without_biases(arch: str) -> nn.Module:
    model = network(arch).double()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
    return model


@pytest.mark.parametrize("arch", STUDY_NETS)
@pytest.mark.parametrize("rule", ["epsilon", "epsilon-plus"])
def test_relevance_is_conserved_without_biases(arch, rule):
    if arch.startswith("timm/"):
        need_module("timm")
    net = Network(without_biases(arch))
    batch = images(1).double()
    lrp.check(net, rule)
    maps = lrp.maps(net, batch, TASKS, rule=rule, epsilon=0.0)
    delta, logit = deltas(net, batch, TASKS, maps)
    assert (delta / logit).abs().max() < 1e-6


def test_the_rule_with_positive_parts_only_makes_no_negative_relevance_of_positive():
    """z+ on a net of positive weights is epsilon; on any, the relevance of a positive logit that only positive parts
    made stays positive."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
    ).double()
    nn.init.uniform_(model[-1].weight, 0.1, 1)
    net, batch = on(model), images(2, 16).double().abs()
    maps = lrp.maps(net, batch, TASKS, rule="epsilon-plus", epsilon=0.0)
    assert maps.min() >= 0
    assert lrp.maps(net, batch, TASKS, rule="epsilon", epsilon=0.0).min() < 0
    for module in model:
        if hasattr(module, "weight"):
            nn.init.uniform_(module.weight, 0.1, 1)
    net = on(model)
    close(
        lrp.maps(net, batch, TASKS, rule="epsilon-plus", epsilon=0.0),
        lrp.maps(net, batch, TASKS, rule="epsilon", epsilon=0.0),
        1e-10,
    )


# SmoothGrad


def test_smoothgrad_is_the_mean_gradient_of_its_noisy_copies():
    model = network("resnet18").double()
    batch = images(1, 64).double()
    drawn = []

    def noise(key, image, made=smoothgrad._noise):
        drawn.append(made(key, image))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothgrad, "_noise", noise)
        ours = smoothgrad.maps(Network(model), batch, TASKS, samples=5, batch=2)
    spread = 0.15 * (batch.amax((2, 3), keepdim=True) - batch.amin((2, 3), keepdim=True))
    expected = 0
    for each in drawn:
        leaf = (batch + spread * each).requires_grad_()
        rows = [torch.autograd.grad(model(leaf)[:, task].sum(), leaf)[0].sum(1) for task in TASKS]
        expected = expected + torch.stack(rows, 1) / 5
    assert len(drawn) == 5
    close(ours, expected.detach(), 1e-9)


def test_smoothgrad_follows_seed_and_image():
    net = Network(network("shufflenet_v2_x0_5"))
    batch = images(2, 64)
    maps = smoothgrad.maps(net, batch, [0], samples=3)
    assert torch.equal(maps, smoothgrad.maps(net, batch, [0], samples=3))
    assert torch.equal(maps[1:], smoothgrad.maps(net, batch[1:], [0], samples=3))
    assert not torch.equal(maps, smoothgrad.maps(net, batch, [0], samples=3, seed=1))


# All of them


METHODS = {
    "ig": lambda *given: integrated_gradients(*given, steps=3, batch=2),
    "deeplift": deeplift,
    "lrp": lrp.maps,
    "smoothgrad": lambda *given: smoothgrad.maps(*given, samples=3, batch=2),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_singles(method):
    net, batch = Network(network("densenet121").double()), images(3, 64).double()
    singles = torch.cat([METHODS[method](net, image[None], TASKS) for image in batch])
    close(METHODS[method](net, batch, TASKS), singles, 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_modes_change_nothing_and_nothing_is_left_behind(method):
    model = network("resnet18")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    net, batch = Network(model), images(1, 64)
    expected = METHODS[method](net, batch, TASKS)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            assert torch.equal(METHODS[method](net, batch, TASKS), expected)
    assert all(parameter.grad is None for parameter in model.parameters()) and batch.grad is None
    assert expected.requires_grad is False


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
@pytest.mark.parametrize(("arch", "said"), [("convnext_tiny", "layer_norm"), ("vit_b_32", "")])
def test_networks_without_rules_are_refused_in_one_line(method, arch, said):
    net = Network(network(arch))
    with pytest.raises(InputError, match=f"has no rule for {said}.*, which .* has; choose another --method"):
        check(net) if method == "deeplift" else lrp.check(net, "epsilon")
    lrp.check(net, "gradient-input")


def test_a_number_over_a_map_is_not_linear():
    class Net(nn.Module):
        def __init__(self, turned: bool):
            super().__init__()
            self.conv, self.head, self.turned = nn.Conv2d(3, 2, 1), nn.Linear(2, 5), turned

        def forward(self, x):
            x = self.conv(x)
            x = 2 / x if self.turned else x / 2
            return self.head(x.mean((2, 3)))

    for turned in (False, True):
        torch.manual_seed(0)
        net, batch = on(Net(turned).double(), "conv"), images().double()
        check(net)
        delta, change = deltas(net, batch, TASKS, deeplift(net, batch, TASKS, baseline="mean"), "mean")
        assert (delta.abs() <= 1e-9 * change.abs() + 1e-9).all()


@pytest.mark.parametrize(
    "arch",
    [
        "alexnet",
        "vgg11_bn",
        "resnet18",
        "mobilenet_v2",
        "mnasnet0_5",
        "regnet_x_400mf",
        "googlenet",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
    ],
)
def test_every_family_that_has_rules(arch):
    net = Network(calibrated(arch).double())
    batch = images(1).double()
    check(net)
    delta, change = deltas(net, batch, TASKS, deeplift(net, batch, TASKS), 0.0)
    assert (delta / change).abs().max() < 1e-9
    lrp.check(net, "epsilon-plus")
    assert torch.isfinite(lrp.maps(net, batch, TASKS)).all()


def test_the_multiclass_logit_is_attributed_as_a_difference():
    columns = [(1, 0), (3, None)]
    model, batch = network("resnet18").double(), images(1, 64).double()
    net, plain = Network(model, columns=columns), Network(model)
    both, single = (deeplift(each, batch, tasks) for each, tasks in ((net, [0, 1]), (plain, [0, 1, 3])))
    close(both, torch.stack([single[:, 1] - single[:, 0], single[:, 2]], 1), 1e-9)


def test_completeness_makes_no_pass_that_was_made(monkeypatch):
    net, batch = Network(network("resnet18")), images(1, 64)
    passes = []
    whole = Network.whole
    monkeypatch.setattr(Network, "whole", lambda self, x: passes.append(x) or whole(self, x))
    once = Once(net, batch)
    deltas(once, batch, TASKS, deeplift(once, batch, TASKS), 0.0)
    assert len(passes) == 1  # the baseline's
    delta, _ = deltas(net, batch, TASKS, deeplift(net, batch, TASKS), 0.0)
    assert delta.shape == (1, 3) and TOLERANCE == 1e-3


# Baselines and chunks


def test_baselines():
    batch = images(2, 40)
    assert torch.equal(baselines.of(0.0, batch), torch.zeros(1, 3, 40, 40))
    assert torch.equal(baselines.of([1, 2, 3], batch)[0, :, 7, 9], torch.tensor([1.0, 2, 3]))
    assert torch.allclose(baselines.of("mean", batch)[:, :, 3, 3], batch.mean((2, 3)))
    blurred = baselines.of("blur", batch)
    assert blurred.shape == batch.shape and blurred.std() < 0.4 * batch.std()
    flat = torch.full((1, 3, 40, 40), 2.5)
    assert torch.allclose(baselines.of("blur", flat), flat)  # also at the borders
    point = torch.zeros(1, 3, 201, 201)
    point[..., 100, 100] = 1
    weights = baselines.of("blur", point)[0, 0].sum(0)
    offsets = torch.arange(201.0) - 100
    assert float((weights * offsets**2).sum().sqrt()) == pytest.approx(201 / 20, rel=0.02)  # cut off at 3 deviations


def test_occlusion_by_what_is_made_from_the_image():
    net, batch = Network(network("resnet18")), images(2, 64)
    by_mean = occlude(net, batch, [0], window=32, stride=32, baseline="mean")
    singles = [
        occlude(net, image[None], [0], window=32, stride=32, baseline=image.mean((1, 2)).tolist()) for image in batch
    ]
    close(by_mean, torch.cat(singles))


def test_chunks_are_halved_where_memory_is_short():
    sizes = []

    def work(part: slice) -> torch.Tensor:
        sizes.append(part.stop - part.start)
        if sizes[-1] > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return torch.arange(part.start, part.stop)

    assert torch.cat(list(in_chunks(10, 8, work))).tolist() == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(MemoryError):
        list(in_chunks(2, 2, lambda part: (_ for _ in ()).throw(MemoryError())))
    with pytest.raises(RuntimeError, match="something else"):
        list(in_chunks(2, 2, lambda part: (_ for _ in ()).throw(RuntimeError("something else"))))


def test_a_fingerprint_is_of_what_is_seen():
    image = images(1, 32)[0]
    assert floors.fingerprint(image) == floors.fingerprint(image * 1.0000001)  # as another device rounds
    assert floors.fingerprint(image) != floors.fingerprint(image.flip(1))
    assert floors.fingerprint(torch.zeros(3, 8, 8)) == floors.fingerprint(torch.zeros(3, 8, 8) + 5)


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize(
    "arch",
    [
        "densenet121",
        "resnet18",
        "inception_v3",
        "mobilenet_v2",
        "vgg11_bn",
        "swin_t",
        "convnext_tiny",
        "efficientnet_b0",
        "timm/inception_v4",
    ],
)
def test_folded_networks_say_the_same(arch, forward):
    net = Network(calibrated(arch).double())
    batch = images(2).double()
    with torch.no_grad():
        close(net.folded(forward=forward)(batch), net(batch), 1e-10)
        left = [m for m in net.folded(forward=forward).modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(left) == (arch == "densenet121" and not forward)  # whose norms precede their convolutions


def test_a_channel_whose_scale_is_0_is_a_constant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).double().eval()
    norm = model[0]
    norm.weight.data = torch.tensor([0.0, 1e-30, -2.0, 1.0]).double()
    norm.bias.data = torch.tensor([0.7, -0.3, 0.2, -0.1]).double()
    net = on(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *model, nn.Flatten(), nn.Linear(2 * 36, 5)).double().eval())
    batch = images(2, 8).double()
    with torch.no_grad():
        close(net.folded(forward=True)(batch), net(batch), 1e-12)
