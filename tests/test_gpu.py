"""On a GPU: a CPU's numbers, the same bytes each time, memory that is short, and nothing that waits between batches."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from gpu import need_gpu, unwaited
from test_cam import CXRS, checkpoint
from test_canonical import network
from test_saliency import TASKS, close, images
from test_train import contents, run_of, without_times, xrays  # noqa: F401

from chextools.masks.mask import Mask
from chextools.models import inference
from chextools.predict import Predictor
from chextools.saliency.methods import METHODS
from chextools.saliency.network import Network, Once
from chextools.training.outlines import Outlines

OPTIONS = {"occlusion": {"window": 32, "stride": 16}, "ig": {"steps": 4}, "smoothgrad": {"samples": 4}}
MADE = [name for name in METHODS if name not in ("mean", "rollout")]  # of all images; of other networks than these
STREAMED = ["gradcam", "gradcampp", "layercam", "hirescam", "deeplift", "lrp"]  # a batch goes through them as it is


@pytest.fixture(autouse=True)
def exactly():
    need_gpu()
    with torch.backends.cudnn.flags(enabled=True):
        inference.exactly()
        yield


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("one") / "one.pt")


def explained(method: str, model: torch.nn.Module, batch: torch.Tensor, device: str) -> torch.Tensor:
    net = Network(copy.deepcopy(model).to(device))
    return METHODS[method].load()(net, batch.to(device), TASKS, **OPTIONS.get(method, {})).cpu()


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "vit_b_16"])
@pytest.mark.parametrize("method", MADE)
def test_maps_are_a_cpus_and_the_same_each_time(method, arch):
    model, batch = network(arch, size=64), images(size=64)
    if arch == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight)  # else 0
    if METHODS[method].module != "floors":
        double = copy.deepcopy(model).double()
        here, there = (explained(method, double, batch.double(), device) for device in ("cpu", "cuda"))
        close(there, here, 1e-9)  # in double precision rounding is all that differs
    first, second = (explained(method, model, batch, "cuda") for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", STREAMED)
def test_a_batch_is_handed_to_the_gpu_without_waiting_for_it(method):
    net, batch = Network(network("densenet121").cuda()), images().cuda()
    work = METHODS[method].load()
    work(Once(net, batch), batch, TASKS)  # chooses kernels, and makes what is made once
    once = Once(net, batch)
    with unwaited():
        maps = work(once, batch, TASKS)
        once.logits()
    assert torch.isfinite(maps).all()


def test_commands_write_a_cpus_numbers_and_the_same_bytes(cli, tmp_path, one):
    def made(device: str, folder: str) -> tuple[list[dict], dict[str, bytes]]:
        options = ["--checkpoint", one, "--device", device, "-q"]
        scored = cli("chex-predict", CXRS, *options)
        mapped = cli("chex-cam", CXRS, *options, "-o", tmp_path / folder)
        assert scored.code == mapped.code == 0, scored.err + mapped.err
        records = [json.loads(line) for line in (scored.out + mapped.out).splitlines()]
        return records, {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    (there, files), (again, same), (here, _) = made("cuda", "a"), made("cuda", "b"), made("cpu", "c")
    assert files == same and [r["scores"] for r in there] == [r["scores"] for r in again]
    for a, b in zip(there, here, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"amp": "bf16", "channels_last": True}, {"amp": "fp16"}, {"clip": 1.0}])
def test_a_run_stopped_after_every_step_ends_with_the_same_files(xrays, tmp_path, options):  # noqa: F811
    whole = run_of(xrays, tmp_path / "whole", device="cuda", **options)
    expected = [row for row in whole.events() if row]
    for _ in range(20):
        run = run_of(xrays, tmp_path / "RUN", device="cuda", **options)
        rows = [row for row in run.events(lambda: True) if row]
        if run.finished:
            break
    assert without_times(rows) == without_times(expected)
    assert contents(tmp_path / "RUN") == contents(tmp_path / "whole")


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small"])  # one linear layer after the pool; two
def test_outlines_train_to_the_same_files_each_time(xrays, tmp_path, arch):  # noqa: F811
    left = np.zeros((32, 32), bool)
    left[:, :16] = True
    outlines = Outlines(64)
    for row in range(1, 16, 2):
        outlines.add(row, 0, Mask.from_array(left))
    for name in ("first", "second"):
        run = run_of(xrays, tmp_path / name, device="cuda", arch=arch, size=64, outlines=outlines)
        rows = [row for row in run.events() if row]
    assert all(row["outline_loss"] > 0 for row in rows)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_batch_too_large_for_the_memory_is_halved(one, caplog):
    caplog.set_level("INFO", "chextools")
    predictor = Predictor([str(one)], device="cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (4096, 64, 64), np.uint8)
    stack = {predictor.squares[0]: pixels}
    scores = predictor.predict(stack)[0]
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        again = predictor.predict(stack)[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "halved" in caplog.text
    np.testing.assert_allclose(again, scores, atol=1e-5)  # other batches may use other kernels


def test_probes_say_what_they_say_on_a_cpu(cli, tmp_path, one):
    maps = cli("chex-cam", CXRS, "--checkpoint", one, "-o", tmp_path / "maps", "--task", "Edema", "-q")
    found = []
    for device in ("cpu", "cuda", "cuda"):
        options = ["--checkpoint", one, "--steps", 5, "--device", device, "-q", "--metric", "deletion"]
        result = cli("chex-probe", *options, stdin=maps.out.encode())
        assert result.code == 0, result.err
        found.append([json.loads(line)["deletion"]["Edema"] for line in result.out.splitlines()])
    assert found[1] == found[2] and None not in found[0]
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def test_a_baseline_per_channel_is_made_where_the_images_are():
    net, batch = Network(network("resnet18").cuda()), images().cuda()
    made = [METHODS["ig"].load()(net, batch, TASKS, steps=2, baseline=value) for value in (0.0, [0.0] * 3, "blur")]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
