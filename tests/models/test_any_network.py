"""Any network through chex-import: scores and Grad-CAM as those of the original, by the libraries of the field.

Weights are random but lively; inputs as small as the networks allow.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from conftest import DATA
from small_networks import Own, lively
from torch import nn

from chextools.models import assembly, checkpoints, tracing
from chextools.saliency.completeness import deltas
from chextools.saliency.deeplift import maps as deeplift
from chextools.saliency.gradcam import maps as gradcam
from chextools.saliency.ig import maps as ig
from chextools.saliency.network import Network
from chextools.saliency.occlusion import maps as occlude
from chextools.saliency.rollout import maps as rollout
from chextools.saliency.settings import MethodSettings

OUTPUTS = 3


def xrv_densenet() -> tuple[nn.Module, int, int, str]:
    xrv = pytest.importorskip("torchxrayvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xrv.models.DenseNet(num_classes=OUTPUTS, block_config=(2, 2, 2, 2)), 1, 64, "features.norm5"


def xrv_resnet() -> tuple[nn.Module, int, int, str]:
    """As torchxrayvision builds it: torchvision's, of one channel."""
    from torchvision import models

    network = models.resnet18(num_classes=OUTPUTS)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return network, 1, 64, "layer4"


def chexnet() -> tuple[nn.Module, int, int, str]:
    from torchvision import models

    network = models.DenseNet(block_config=(2, 2, 2, 2), num_classes=OUTPUTS)
    network.classifier = nn.Sequential(nn.Linear(network.classifier.in_features, OUTPUTS), nn.Sigmoid())
    return network, 3, 64, ""


def timm(name: str, size: int, layer: str, **options) -> tuple[nn.Module, int, int, str]:
    library = pytest.importorskip("timm")
    return library.create_model(name, num_classes=OUTPUTS, **options), 3, size, layer


def transformer() -> tuple[nn.Module, int, int, str]:
    """A ViT of transformers, built from its configuration alone."""
    library = pytest.importorskip("transformers")
    from chextools.models.sources import Logits

    settings = library.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        num_labels=OUTPUTS,
    )
    return Logits(library.ViTForImageClassification(settings)), 3, 64, "model.vit.layers.1.layernorm_before"


NETWORKS = {
    "xrv-densenet": xrv_densenet,
    "xrv-resnet": xrv_resnet,
    "chexnet": chexnet,
    "inception_v4": lambda: timm("inception_v4", 128, "features"),
    "convnext": lambda: timm("convnext_atto", 64, "stages"),
    "swin": lambda: timm("swin_tiny_patch4_window7_224", 56, "norm", img_size=56, depths=(1, 1, 2, 1), embed_dim=24),
    "vit": lambda: timm("vit_tiny_patch16_224", 64, "blocks.1.norm1", img_size=64, depth=2),
    "efficientnet": lambda: timm("efficientnet_b0", 64, "bn2"),
    "transformers-vit": transformer,
    "own": lambda: (Own(OUTPUTS), 1, 32, ""),
}
# Layers whose output is the network's own feature maps, so that a hook sees what Grad-CAM is about; of the others
# functions come after them.
HOOKED = ("xrv-resnet", "inception_v4", "convnext", "efficientnet", "swin", "vit", "transformers-vit")


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    """(name, original, layer, network of the checkpoint, images [2, C, size, size])."""
    torch.manual_seed(0)
    original, channels, size, layer = NETWORKS[request.param]()
    original = lively(original)
    graph, tensors = checkpoints.traced(original, channels, size)
    made = assembly.assemble(graph, tensors, channels, size)
    return request.param, original, layer, made, torch.randn(2, channels, size, size)


def test_scores_are_the_originals(case):
    _, original, _, made, images = case
    with torch.no_grad():
        for count in (1, 2):
            wanted, found = original(images[:count]), made(images[:count])
            assert wanted.std() > 0
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_last_feature_maps_are_found(case):
    name, _, layer, made, _ = case
    if layer and name != "xrv-densenet":
        assert made.default_layer == layer
    assert made.default_layer is not None


def of_tokens(values: torch.Tensor) -> torch.Tensor:
    """[N, 1 + 4 x 4, C], the class token first, as [N, C, 4, 4]."""
    return values[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


def test_grad_cam_of_all_tasks_is_pytorch_grad_cams(case):
    name, original, layer, made, images = case
    if name not in HOOKED:
        pytest.skip("a function after the layer's module: what a hook sees is not what is explained")
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    reshape = {"swin": lambda x: x.permute(0, 3, 1, 2), "vit": of_tokens, "transformers-vit": of_tokens}.get(name)
    cam = library.GradCAM(original, [original.get_submodule(layer)], reshape_transform=reshape)
    found = gradcam(Network(made), images, range(OUTPUTS))
    for task in range(OUTPUTS):
        cam.activations_and_grads.reshape_transform = reshape
        _ = cam(images, [ClassifierOutputTarget(task)] * len(images))
        store = cam.activations_and_grads
        values, gradients = store.activations[0], store.gradients[0]
        wanted = (gradients.mean((2, 3), keepdim=True) * values).sum(1).relu()
        torch.testing.assert_close(found[:, task], wanted, rtol=0, atol=float(1e-5 * wanted.abs().max() + 1e-12))
    cam.activations_and_grads.release()


@pytest.mark.parametrize("case", ["vit", "transformers-vit"], indirect=True)
def test_of_the_last_block_what_the_class_token_needs_is_computed(case):
    """Its keys and values, of all tokens, are where the gradient is averaged; one query goes into its attention."""
    _, _, _, made, images = case
    cut = Network(made)._cut
    queries = []

    class Run(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            if target is torch.ops.aten.scaled_dot_product_attention.default:
                queries.append(args[0].shape[-2])
            return super().call_function(target, args, kwargs)

    values = cut.features(images)
    Run(cut.tail).run(*values, *(entry(values[0]) for entry in cut.entries))
    assert cut.entries and queries == [1]


def test_occlusion_and_integrated_gradients_are_captums(case):
    captum = pytest.importorskip("captum.attr")
    name, original, _, made, images = case
    if name in ("inception_v4", "swin", "efficientnet"):
        pytest.skip("one network of each kind is enough")
    network, side = Network(made), images.shape[-1]
    window = side // 2
    with torch.no_grad():
        wanted = captum.Occlusion(original).attribute(
            images, (images.shape[1], window, window), (images.shape[1], window, window), 0.0, target=1
        )[:, 0]
    found = occlude(network, images, [1], window=window, stride=window)[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=float(1e-5 * wanted.abs().max()))
    if name == "own":
        return  # which works in place: autograd itself refuses the original
    # In float64: float32 moves the kinks of ReLUs, where gradients jump
    graph, tensors = tracing.trace(original, *images.shape[1:3])
    tensors = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    layer = made.default_layer
    network, images = Network(assembly.assemble(graph, tensors, *images.shape[1:3]), layer), images.double()
    original = copy.deepcopy(original).double()
    wanted = captum.IntegratedGradients(original).attribute(images, target=1, n_steps=4, method="gausslegendre").sum(1)
    found = ig(network, images, [1], steps=4)[:, 0]
    torch.testing.assert_close(found, wanted.to(found), rtol=1e-5, atol=float(1e-5 * wanted.abs().max()))


def test_deeplift_is_complete(case):
    """Whatever the network is made of: products, gates, norms of all kinds, attention among all tokens or windows."""
    _, _, _, made, images = case
    network = Network(made)
    MethodSettings(method="deeplift").check(network)
    images = images / 4
    delta, change = deltas(network, images, [0, 2], deeplift(network, images, [0, 2]), 0.0)
    assert (delta.abs() <= 1e-3 * change.abs() + 1e-6).all()


def test_attention_is_rolled_out(case):
    name, _, _, made, images = case
    if name not in ("vit", "transformers-vit"):
        pytest.skip("no attention among all tokens")
    network = Network(made)
    MethodSettings(method="rollout").check(network)
    (first, second) = rollout(network, images, [0, 1])
    assert first.shape == (2, 4, 4) and torch.equal(first[0], first[1])
    assert first.min() > 0 and first[0].sum() < 1
    torch.testing.assert_close(rollout(network, images[1:], [0])[0, 0], second[0])


def test_outputs_that_torchxrayvision_never_trained_are_no_tasks(tmp_path, monkeypatch):
    """Its ResNet says 0.5 for ever where an operating point is not a number."""
    xrv = pytest.importorskip("torchxrayvision")
    from chextools.models import sources

    name = "resnet50-res512-all"
    file = tmp_path / xrv.models.model_urls[name]["weights_url"].rpartition("/")[2]
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: f"{tmp_path}/")
    from torchvision import models

    monkeypatch.setattr(models, "resnet50", models.resnet18)
    network = models.resnet18(num_classes=18)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.save(network.state_dict(), file)
    found = sources.open_source(f"xrv:{name}", None, None, None, None, download=False)
    assert found.size == 512 and found.outputs.count("") == 2 and len(found.points) == 16
    assert {"Lung Lesion", "Enlarged Cardiomediastinum"} & set(found.outputs) == set()
    torch.testing.assert_close(found.module(torch.ones(1, 1, 64, 64)), network.eval()(torch.ones(1, 1, 64, 64)))


def test_their_own_preprocessing_gives_their_scores(tmp_path, cli):
    """torchxrayvision's loader, crop and resizer on a JPEG of real size, against chex-predict's."""
    xrv = pytest.importorskip("torchxrayvision")
    pytest.importorskip("skimage")
    import json

    import numpy as np
    from PIL import Image

    with Image.open(next((DATA / "cxr").rglob("*.jpg"))) as small:
        small.convert("L").resize((1201, 900)).save(tmp_path / "cxr.png")
    torch.manual_seed(0)
    original, _, size, _ = xrv_densenet()
    original = lively(original)
    torch.save(original, tmp_path / "whole.pth")
    image = xrv.utils.load_image(str(tmp_path / "cxr.png"))
    image = xrv.datasets.XRayResizer(size)(xrv.datasets.XRayCenterCrop()(image))
    with torch.no_grad():
        wanted = original(torch.from_numpy(image)[None]).sigmoid()[0].tolist()
    (tmp_path / "net.py").write_text(
        "import torchxrayvision as xrv\n"
        "def build(outputs):\n"
        "    return xrv.models.DenseNet(num_classes=outputs, block_config=(2, 2, 2, 2))\n"
    )
    options = [
        "--arch",
        f"{tmp_path}/net.py:build",
        "--tasks",
        "Edema,Effusion,Mass",
        "--size",
        size,
        "--range=-1024,1024",
    ]
    options += ["--channels", "1", "--resize", "shorter-centre-crop", "--antialias", "skimage"]
    made = cli(
        "chex-import", tmp_path / "whole.pth", *options, "-o", tmp_path / "c.pt", "--example", tmp_path / "cxr.png"
    )
    assert made.code == 0, made.err
    scores = json.loads(cli("chex-predict", tmp_path / "cxr.png", "--checkpoint", tmp_path / "c.pt", "-q").out)[
        "scores"
    ]
    assert scores == pytest.approx(json.loads(made.out)["example"]["scores"], abs=1e-6)
    found = [scores[task] for task in ("Edema", "Pleural Effusion", "Mass")]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    record = json.loads(
        cli("chex-cam", tmp_path / "cxr.png", "--checkpoint", tmp_path / "c.pt", "-q", "-o", tmp_path / "maps").out
    )
    assert record["crop"] == [0, 150, 900, 1050]
    maps = np.load(record["heatmap"])["maps"]
    assert maps.shape[1:] == (size, round(size * 1201 / 900))
    seen = np.abs(maps).sum((0, 1)) > 0
    assert not seen[:10].any() and not seen[-10:].any() and seen[20:-20].any()
