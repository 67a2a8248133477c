"""Saliency methods: against their formulas, against captum and pytorch-grad-cam, and against what users trip over."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from conftest import need_module
from test_canonical import network, one_thread  # noqa: F401
from torch import nn

from chextools.errors import InputError
from chextools.saliency import floors
from chextools.saliency.eigencam import maps as eigencam
from chextools.saliency.gradcam import maps as gradcam
from chextools.saliency.gradcampp import maps as gradcampp
from chextools.saliency.hirescam import maps as hirescam
from chextools.saliency.layercam import maps as layercam
from chextools.saliency.methods import METHODS
from chextools.saliency.network import Network, Once
from chextools.saliency.occlusion import maps as occlude
from chextools.saliency.occlusion import windows

CAMS = [gradcam, gradcampp, layercam, hirescam, eigencam]
TASKS = [3, 0, 1]


def images(count: int = 2, size: int = 96) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def without_closed_form(net: Network) -> Network:
    net.weights = None
    return net


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to a tolerance relative to the greatest value."""
    scale = float(b.abs().max())
    assert scale > 0
    torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def densenet():
    return network("densenet121")


@pytest.fixture(scope="module")
def resnet():
    return network("resnet18")


# Exact


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("arch", ["densenet", "resnet"])
def test_the_closed_form_is_autograd(request, arch, method):
    model = copy.deepcopy(request.getfixturevalue(arch)).double()
    net, batch = Network(model), images().double()
    assert net.weights is not None
    close(method(net, batch, TASKS), method(without_closed_form(Network(model)), batch, TASKS), 1e-12)


@pytest.mark.parametrize("arch", ["densenet121", "resnet18", "inception_v3", "convnext_tiny", "vgg11_bn"])
def test_gradcam_is_captums(arch):
    captum = need_module("captum.attr")
    model = network(arch, size=128)
    net = Network(model)
    batch = images(size=128)
    ours = gradcam(net, batch, TASKS)
    # on our graph, whose ReLU is not in place: on stock DenseNet captum mixes activations after it, gradients before
    layer = dict(net.model.named_modules())[last_module(net)]
    theirs = [captum.LayerGradCam(net.model, layer).attribute(batch, target=t, relu_attributions=True) for t in TASKS]
    close(ours, torch.cat(theirs, 1).detach())


def last_module(net: Network) -> str:
    """The leaf whose output is the layer's."""
    node = next(n for n in net.model.graph.nodes if n.name == net.model.layer_nodes[net.layer])
    if node.op == "call_module":
        return node.target
    pytest.skip("the layer's output is no module's")  # a sum or concatenation


def test_gradcam_plus_plus_is_its_formula(resnet):
    net = Network(resnet)
    features, gradients = net.gradients(images(), TASKS)
    expected = []
    for g in gradients:
        a, g = features.double(), g.double()
        alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3)
        weights = (alpha.nan_to_num(0) * g.relu()).sum((2, 3), keepdim=True)
        expected.append((weights * a).sum(1).relu())
    close(gradcampp(net, images(), TASKS).double(), torch.stack(expected, 1))


def test_gradcam_plus_plus_with_the_customary_epsilon_is_another_map(resnet):
    """The reason for having none: with 1e-6 pytorch-grad-cam's maps are not the formula's."""
    grad_cam = need_module("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    ours = gradcampp(Network(resnet), images(1), [0])[0, 0]
    with grad_cam.GradCAMPlusPlus(resnet, [resnet.layer4]) as cam:
        theirs = cam(images(1), [ClassifierOutputTarget(0)])
    theirs = nn.functional.interpolate(torch.tensor(theirs)[None], ours.shape, mode="area")[0, 0]
    assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] < 0.9999


def test_eigencam_is_the_first_component_with_the_sign_of_the_activation(resnet):
    net = Network(resnet)
    maps = eigencam(net, images(), TASKS)
    features = net.features(images())[0]
    assert torch.equal(maps[:, 0], maps[:, 2])  # no task is looked at
    for n in range(2):
        points = features[n].flatten(1).T.double()
        points = points - points.mean(0)
        first = torch.linalg.svd(points, full_matrices=False)[2][0]
        expected = points @ first
        mean = points.mean(1)
        expected = expected * torch.sign((expected * mean).sum())
        close(maps[n, 0].flatten().double(), expected)


def test_eigencam_of_few_channels_takes_the_other_gram_matrix():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    maps = eigencam(Network(model, "1"), images(1, 16), [0])
    points = model[1](model[0](images(1, 16)))[0].flatten(1).T.detach()
    points = points - points.mean(0)
    expected = points @ torch.linalg.svd(points, full_matrices=False)[2][0]
    close(maps.flatten().abs(), expected.abs(), 1e-4)


def test_hirescam_sums_to_the_logit_less_its_bias(densenet):
    maps = hirescam(Network(densenet), images(), TASKS)
    with torch.no_grad():
        logits = densenet(images()) - densenet.classifier.bias
    torch.testing.assert_close(maps.sum((2, 3)), logits[:, TASKS], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 8), (20, 12), (64, 5)])
def test_occlusion_is_captums(window, stride):
    captum = need_module("captum.attr")
    model = network("shufflenet_v2_x0_5")
    batch = images(1, 64)
    ours = occlude(Network(model), batch, TASKS, window=window, stride=stride, baseline=[0.5, 0.1, 0.0])
    baseline = torch.tensor([0.5, 0.1, 0.0])[:, None, None].expand(3, 64, 64)[None]
    for k, task in enumerate(TASKS[:2]):
        theirs = captum.Occlusion(model).attribute(
            batch, (3, window, window), (3, stride, stride), baseline, target=task, perturbations_per_eval=8
        )
        close(ours[0, k], theirs[0, 0])


def test_occlusion_of_a_linear_network_is_its_own_weights():
    """Windows of one pixel: what is lost is the pixel's part of the sum."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    batch = images(2, 4)
    maps = occlude(Network(model), batch, [1], window=1, stride=1)
    close(maps[:, 0], (batch * model[1].weight[1].detach().reshape(3, 4, 4)).sum(1))


def test_windows_cover_every_pixel_of_any_size():
    for side, window, stride in [(10, 4, 3), (7, 7, 7), (9, 2, 2), (5, 9, 1)]:
        seen = np.zeros((side, side + 1), int)
        for top, bottom, left, right in windows(side, side + 1, window, stride):
            assert 0 <= top < bottom <= side and 0 <= left < right <= side + 1
            seen[top:bottom, left:right] += 1
        assert seen.min() > 0


def test_the_multiclass_logit_is_positive_minus_negative(resnet):
    columns = [(1, 0), (3, None)]
    net = Network(resnet, columns=columns)
    with torch.no_grad():
        raw = resnet(images())
    assert torch.equal(net(images()), torch.stack([raw[:, 1] - raw[:, 0], raw[:, 3]], 1))
    plain = hirescam(Network(resnet), images(), [0, 1, 3])
    for each in (net, without_closed_form(Network(resnet, columns=columns))):
        close(hirescam(each, images(), [0, 1]), torch.stack([plain[:, 1] - plain[:, 0], plain[:, 2]], 1))


# Any network, any caller


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_a_batch_is_its_singles(arch, method):
    model = network(arch)
    if arch == "vit_b_32":
        nn.init.normal_(model.heads.head.weight)  # torchvision starts it at 0
    net = Network(model)
    batch = images(3)
    singles = torch.cat([method(net, image[None], TASKS) for image in batch])
    close(method(net, batch, TASKS), singles)


def test_one_task_is_its_part_of_many(resnet):
    for net in (Network(resnet), without_closed_form(Network(resnet))):
        for method in CAMS:
            close(method(net, images(), [1])[:, 0], method(net, images(), TASKS)[:, 2], 1e-6)


def test_autograd_mode_freezing_and_half_precision_of_the_caller_change_nothing(resnet):
    expected = [method(Network(resnet, "layer3"), images(), TASKS) for method in CAMS]
    assert all(not each.requires_grad for each in expected)

    def again(model):
        found = [method(Network(model, "layer3"), images(), TASKS) for method in CAMS]
        return all(torch.equal(a, b) for a, b in zip(found, expected))

    with torch.no_grad():
        assert again(resnet)
    with torch.inference_mode():
        assert again(resnet)
    with torch.autocast("cpu", torch.bfloat16):
        assert again(resnet)
    frozen = network("resnet18").requires_grad_(False).train()
    assert again(frozen)
    assert frozen.training and all(p.grad is None for p in frozen.parameters())
    with torch.inference_mode():
        inside = images() * 1
        assert torch.equal(gradcam(Network(resnet, "layer3"), inside, TASKS), expected[0])


def test_an_image_that_is_nan_spoils_no_other(resnet):
    batch = images(3)
    batch[1] = torch.nan
    for net in (Network(resnet), without_closed_form(Network(resnet))):
        for method in CAMS:
            maps = method(net, batch, TASKS)
            assert maps[[0, 2]].isfinite().all() and not maps[1].isfinite().all(), method


def test_maps_that_would_be_all_negative_are_0_or_signed_never_nan(resnet):
    model = network("resnet18")
    with torch.no_grad():
        model.fc.weight[0] = -model.fc.weight[0].abs()  # every feature speaks against the task
    net = Network(model)
    assert (gradcam(net, images(), [0]) == 0).all() and (gradcampp(net, images(), [0]) == 0).all()
    assert (hirescam(net, images(), [0]) <= 0).all()


def test_layers_of_other_layouts(resnet):
    swin = network("swin_t")
    deep, shallow = Network(swin, "features"), Network(swin)  # before the last norm: channels last
    assert deep.spatial(deep.features(images())[0]).shape == shallow.spatial(shallow.features(images())[0]).shape
    vit = Network(network("vit_b_32"))
    assert gradcam(vit, images(), TASKS).shape == (2, 3, 3, 3)
    with pytest.raises(InputError, match=r"^fc of ResNet is \[5\], not feature maps; choose another --layer"):
        Network(resnet, "fc").check(64)
    assert Network(resnet, "layer3").check(64) == (4, 4)


def test_once_computes_the_features_once(resnet, monkeypatch):
    net = Network(resnet)
    counted = []
    real = net._cut.features
    object.__setattr__(net._cut, "features", lambda x: counted.append(len(x)) or real(x))
    for method in CAMS:
        once = Once(net, batch := images())
        method(once, batch, TASKS)
        assert torch.equal(once.logits(), once(batch))
    assert counted == [2] * len(CAMS)


def test_nothing_is_kept_from_call_to_call(resnet):
    net = without_closed_form(Network(resnet))
    gc.collect()
    for method in CAMS:
        method(net, images(), TASKS)
    gc.collect()
    before = sum(isinstance(each, torch.Tensor) for each in gc.get_objects())
    for _ in range(5):
        for method in CAMS:
            method(net, images(), TASKS)
    gc.collect()
    assert sum(isinstance(each, torch.Tensor) for each in gc.get_objects()) <= before


# Floors


def test_random_maps_follow_seed_image_and_task():
    a = floors.random_maps(None, images(3), [0, 1])
    assert torch.equal(a[1:], floors.random_maps(None, images(3)[1:], [0, 1]))  # in whatever batch
    assert torch.equal(a[:, 1:], floors.random_maps(None, images(3), [1]))
    assert not torch.equal(a[0], a[1]) and not torch.equal(a[:, 0], a[:, 1])
    assert not torch.equal(a, floors.random_maps(None, images(3), [0, 1], seed=1))
    many = floors.random_maps(None, images(1, 640), list(range(20)))
    assert abs(float(many.mean()) - 0.5) < 0.01 and many.min() >= 0


def test_the_centre_is_greatest_in_the_middle():
    (maps,) = floors.centred(None, images(1), [0])
    assert maps.argmax() == maps.numel() // 2
    assert torch.equal(maps, maps.flip(1)) and torch.equal(maps, maps.flip(2))


def test_the_mean_of_the_others_leaves_the_image_out():
    maps = torch.rand(4, 2, 3, 3)
    maps[2, 1] = torch.nan
    shown = floors.normalised(maps)
    assert float(shown[0].amax()) == 1
    usable = shown.isfinite().flatten(2).all(2)
    total = torch.where(usable[..., None, None], shown, 0).sum(0)
    means = floors.mean_of_others(shown, total, usable.sum(0))
    torch.testing.assert_close(means[0, 0], shown[1:, 0].mean(0))
    torch.testing.assert_close(means[0, 1], shown[[1, 3], 1].mean(0))
    torch.testing.assert_close(means[2, 1], shown[[0, 1, 3], 1].mean(0))
    alone = floors.mean_of_others(shown[:1], shown[0], torch.ones(2))
    assert alone.isnan().all()


def test_every_method_loads_and_has_the_signature():
    for name, method in METHODS.items():
        if name == "rollout":  # of attention, which this network has not
            continue
        options = {"window": 32, "stride": 32} if name == "occlusion" else {}
        net = Network(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 62 * 62, 3)), "1")
        maps = method.load()(net, images(2, 64), [2, 0], **options)
        assert maps.shape[:2] == (2, 2) and maps.dtype == torch.float32
