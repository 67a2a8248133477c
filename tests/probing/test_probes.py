"""Probes of heatmaps, against loops of their own and against the libraries that have them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import need_module

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.surface import bilinear
from chextools.metrics.similarity import spearman, ssim
from chextools.models import architectures, checkpoints, inference
from chextools.probing import erasure, faithfulness, randomisation, road, sensitivity
from chextools.probing.networks import Networks
from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Subject, area, over_square
from chextools.saliency.ensembles import Ensemble
from chextools.saliency.methods import METHODS
from chextools.saliency.settings import MethodSettings
from chextools.xrays.squares import Square

SIZE, TASKS = 40, ["Cardiomegaly", "Edema"]
MEAN, STD = checkpoints.MEAN, checkpoints.STD


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A checkpoint of a small network whose scores are not all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = architectures.build("resnet18", len(TASKS)).eval()
        network.fc.weight.data *= 20
    path = tmp_path_factory.mktemp("networks") / "small.pt"
    checkpoints.save(path, checkpoints.Checkpoint("resnet18", list(TASKS), SIZE, network))
    return str(path)


def networks_of(path: str, method: str = "gradcam", batch_size: int = 7, **options) -> Networks:
    settings = MethodSettings(method=method, **options)
    ensemble = Ensemble([path], METHODS[method], TASKS, settings.layer, "cpu", settings.check)
    return Networks(ensemble, settings, batch_size)


@pytest.fixture(scope="module")
def networks(path) -> Networks:
    return networks_of(path)


def subject_of(seed: int = 0, sign: str = "positive") -> Subject:
    """An image of blobs in noise, and two maps of a layer's resolution."""
    rng = np.random.default_rng(seed)
    square = Square(SIZE)
    image = (bilinear(rng.random((5, 5), np.float32), (SIZE, SIZE)) * 200 + rng.random((SIZE, SIZE)) * 55).astype(
        np.uint8
    )
    maps = {task: rng.normal(0, 1, (5, 5)).astype(np.float32) for task in TASKS}
    heatmaps = Heatmaps(f"image{seed}", (80, 60), maps, input_size=(SIZE, SIZE))
    return Subject(f"image{seed}", list(TASKS), [0, 1], square, {square: image.astype(np.uint8)}, heatmaps, sign)


@pytest.fixture(scope="module")
def model(path):
    """The plain network: float32 [N, 3, S, S] to logits."""
    network = checkpoints.load(path).model

    def run(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return network(images).numpy().astype(np.float64)

    return run


def normalised(subject: Subject) -> torch.Tensor:
    return inference.normalise(subject.images[subject.square][None], MEAN, STD)


def measured(function, subject: Subject, networks: Networks, settings: ProbeSettings):
    plan = function(subject, settings)
    (scores,) = networks.scores([(subject, plan)], settings.score)
    return plan.finish(scores)


def order_of(values: np.ndarray) -> np.ndarray:
    return np.argsort(-values.ravel(), kind="stable")


def test_a_map_over_the_input_is_the_upsampled_map():
    subject = subject_of()
    for task in TASKS:
        expected = bilinear(np.maximum(subject.heatmaps.maps[task], 0), (SIZE, SIZE))
        assert np.allclose(subject.maps[task], expected, atol=1e-6)


def test_a_map_over_a_square_cut_from_the_middle():
    """Of an image twice as high as wide the network sees the middle half."""
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    seen = over_square(values, (80, 40), Square(4, "shorter-centre-crop"))
    assert np.allclose(seen[:, 0], [4, 6, 8, 10]) and seen.shape == (4, 4)
    padded = over_square(values, (80, 40), Square(8, "pad"))
    assert np.allclose(padded[:, [0, 1, 6, 7]], 0) and np.allclose(padded[:, 2], values[:, 0])


@pytest.mark.parametrize(("steps", "baseline"), [(2, "zero"), (20, "mean"), (5, "blur"), (5, "black")])
def test_deletion_and_insertion_are_those_of_a_loop(networks, model, steps, baseline):
    from chextools.saliency import baselines

    subject = subject_of()
    image = normalised(subject)
    black = [-m / s for m, s in zip(MEAN, STD)]
    fill = baselines.of({"zero": 0.0, "black": black}.get(baseline, baseline), image)[0]
    settings = ProbeSettings(steps=steps, baseline=baseline, score="logit", curve=True)
    for name, function in (("deletion", erasure.deletion), ("insertion", erasure.insertion)):
        values, curves = measured(function, subject, networks, settings)
        y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
        floors = {f"{name}_centre": order_of(-(y**2 + x**2))}
        for k, task in enumerate(TASKS):
            for key, order in ({name: order_of(subject.maps[task])} | floors).items():
                expected = []
                for step in range(steps + 1):
                    taken = torch.zeros(SIZE * SIZE, dtype=torch.bool)
                    taken[order[: round(step * SIZE * SIZE / steps)].copy()] = True
                    stays = taken if name == "insertion" else ~taken
                    expected.append(model(torch.where(stays.reshape(SIZE, SIZE), image[0], fill)[None])[0, k])
                assert curves[key][task] == pytest.approx(expected, abs=2e-4)  # BatchNorm is folded, sums differ
                assert values[key][task] == pytest.approx(np.trapezoid(expected) / steps, abs=2e-4)


class OfGrey(torch.nn.Module):
    """The network from grey levels [N, 1, S, S] on, as quantus would alter them."""

    def __init__(self, path: str):
        super().__init__()
        self.network = checkpoints.load(path).model

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        return self.network(inference.normalise(grey[:, 0], MEAN, STD))


def test_deletion_is_quantus_pixel_flipping(networks, path):
    quantus = need_module("quantus")
    subject = subject_of(3)
    settings = ProbeSettings(steps=20, baseline="black", score="logit", curve=True)
    _, curves = measured(erasure.deletion, subject, networks, settings)
    flipping = quantus.PixelFlipping(
        features_in_step=SIZE * SIZE // 20, perturb_baseline=0.0, normalise=False, abs=False, disable_warnings=True
    )
    for k, task in enumerate(TASKS):
        ranks = np.empty(SIZE * SIZE, np.float32)  # without ties, of which quantus takes any
        ranks[order_of(subject.maps[task])] = np.arange(SIZE * SIZE, 0, -1)
        flipped = flipping(
            model=OfGrey(path).eval(),
            x_batch=subject.images[subject.square][None, None].astype(np.float32),
            y_batch=np.array([k]),
            a_batch=ranks.reshape(1, 1, SIZE, SIZE),
            device="cpu",
            softmax=False,
        )
        assert curves["deletion"][task][1:] == pytest.approx(np.ravel(flipped), abs=2e-4)  # BatchNorm is folded


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_scores_do_not_depend_on_the_batch(path, networks, batch_size):
    subjects = [subject_of(seed) for seed in range(3)]
    settings = ProbeSettings(steps=4)
    plans = [(s, f(s, settings)) for s in subjects for f in (erasure.deletion, faithfulness.of_patches)]
    other = networks_of(path, batch_size=batch_size)
    for a, b in zip(networks.scores(plans, "probability"), other.scores(plans, "probability")):
        assert np.allclose(a, b, atol=1e-5)  # the contract's, of other batches


def test_an_images_numbers_do_not_depend_on_those_beside_it(path):
    """To the bit: shards, and runs that go on, make the same bytes."""
    networks, settings = networks_of(path, batch_size=8), ProbeSettings(steps=4, samples=3)
    subjects = [subject_of(seed) for seed in range(3)]
    plans = [(subject, erasure.deletion(subject, settings)) for subject in subjects]
    together = networks.scores(plans, "probability")
    assert all(np.array_equal(networks.scores([plan], "probability")[0], some) for plan, some in zip(plans, together))
    noisy = sensitivity.to_noise(subjects, networks, settings)
    assert [sensitivity.to_noise([subject], networks, settings)[0] for subject in subjects] == noisy


def test_batches_are_full_and_nothing_is_computed_twice(path):
    networks = networks_of(path, batch_size=8)
    subjects = [subject_of(seed) for seed in range(3)]
    settings = ProbeSettings(steps=5)
    plans = [(subject, erasure.deletion(subject, settings)) for subject in subjects]
    seen = []
    original = networks.ensemble.network_of(networks.ensemble.members[0])
    counting = type(
        "Counting", (), {"whole": lambda self, images: seen.append(len(images)) or original.whole(images)}
    )()
    networks.ensemble.members[0].network = counting
    networks.scores(plans, "probability")
    needed = len(subjects) * (2 + (len(TASKS) + 2) * 4)  # two ends, then each order's inner steps
    assert seen == [8] * -(-needed // 8) and networks.forwards == sum(seen)


def test_a_flat_map_has_no_order(networks):
    subject = subject_of()
    subject.heatmaps.maps["Edema"][:] = -1  # nowhere positive
    for function, key in ((erasure.deletion, "deletion"), (road.remove_and_debias, "road")):
        values, _ = measured(function, subject, networks, ProbeSettings(steps=3))
        assert np.isnan(values[key]["Edema"]) and np.isfinite(values[key]["Cardiomegaly"])
        assert np.isfinite(values[f"{key}_centre"]["Edema"])
    values, _ = measured(faithfulness.of_patches, subject, networks, ProbeSettings())
    assert np.isnan(values["faithfulness"]["Edema"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_imputed_pixels_solve_the_papers_system(share):
    """pytorch-grad-cam has the authors' code, and solves the system directly."""
    imputers = need_module("pytorch_grad_cam.metrics.road")
    rng = np.random.default_rng(0)
    image = torch.from_numpy(bilinear(rng.random((6, 6), np.float32) * 255, (40, 40)))
    blob = torch.from_numpy(bilinear(rng.random((5, 5), np.float32), (40, 40)))
    removed = torch.stack([torch.from_numpy(rng.random((40, 40)) < share), blob > torch.quantile(blob, 1 - share)])
    found = road.imputed(image, removed)
    for each, mask in zip(found, removed):
        expected = imputers.NoisyLinearImputer(noise=0)(image[None], 1 - mask.int())[0]
        assert torch.allclose(each, expected, atol=0.2)  # grey levels of 255: a third of the noise that is added
        assert torch.equal(each[~mask], image[~mask])


def test_road_removes_what_quantus_does(networks, path, model):
    """Its value is another, the share of images whose class stays: that of our imputed images is the same."""
    quantus = need_module("quantus")
    subjects, percentages = [subject_of(seed) for seed in range(4)], [10, 40, 70]
    grey = np.stack([subject.images[subject.square] for subject in subjects])[:, None].astype(np.float32)
    stays = {share: [] for share in percentages}
    for subject, task in zip(subjects, TASKS * 2):
        image, order = torch.from_numpy(grey[len(stays[10])][0]), order_of(subject.maps[task])
        for share in percentages:
            taken = order[: SIZE * SIZE * share // 100].copy()
            removed = torch.zeros(SIZE * SIZE, dtype=torch.bool)
            removed[taken] = True
            ours = road.imputed(image, removed.reshape(1, SIZE, SIZE))
            theirs = quantus.perturb_func.noisy_linear_imputation(image[None].numpy(), taken, noise=0.0)
            assert np.allclose(ours, theirs, atol=0.2)  # grey levels of 255, as above
            scores = model(inference.normalise(ours, MEAN, STD))
            stays[share].append(scores[0].argmax() == len(stays[share]) % 2)
    found = quantus.ROAD(percentages=percentages, noise=0.0, normalise=False, disable_warnings=True)(
        model=OfGrey(path).eval(),
        x_batch=grey,
        y_batch=np.array([0, 1] * 2),
        a_batch=np.stack([subject.maps[task] for subject, task in zip(subjects, TASKS * 2)])[:, None],
        device="cpu",
        softmax=False,
    )
    assert found == {share: np.mean(kept) for share, kept in stays.items()}


def test_road_compares_what_is_removed_first(networks, model):
    subject = subject_of(2)
    values, curves = measured(road.remove_and_debias, subject, networks, ProbeSettings(steps=4, score="logit"))
    for k, task in enumerate(TASKS):
        assert len(curves["road_most"][task]) == len(curves["road_least"][task]) == 4  # at 0, 1/4, 1/2 and 3/4
        assert curves["road_most"][task][0] == pytest.approx(model(normalised(subject))[0, k], abs=2e-4)
        difference = area(curves["road_least"][task]) - area(curves["road_most"][task])
        assert values["road"][task] == pytest.approx(difference)
    again, _ = measured(road.remove_and_debias, subject, networks, ProbeSettings(steps=4, score="logit"))
    assert again == values


def test_faithfulness_is_that_of_a_loop(networks, model):
    subject = subject_of(1)
    settings = ProbeSettings(samples=30, score="logit")
    values, _ = measured(faithfulness.of_patches, subject, networks, settings)
    corners = subject.random(0, "patches").integers(0, SIZE - 5 + 1, (30, 2))
    image = normalised(subject)
    whole = model(image)[0]
    drops, sums = [], []
    for y, x in corners:
        altered = image.clone()
        altered[:, :, y : y + 5, x : x + 5] = 0
        drops.append(whole - model(altered)[0])
        sums.append([subject.maps[task][y : y + 5, x : x + 5].sum() for task in TASKS])
    for k, task in enumerate(TASKS):
        expected = spearman(np.array(drops)[:, k], np.array(sums)[:, k])
        assert values["faithfulness"][task] == pytest.approx(expected, abs=0.01)  # equal ranks but for rounding


def test_faithfulness_is_quantus_for_the_same_patches(networks, path, monkeypatch):
    """It draws single pixels, and takes Pearson's correlation unless told otherwise."""
    quantus = need_module("quantus")
    subject = subject_of(1)
    settings = ProbeSettings(samples=30, score="logit", baseline="black")
    values, _ = measured(faithfulness.of_patches, subject, networks, settings)
    corners = subject.random(0, "patches").integers(0, SIZE - 5 + 1, (30, 2))
    pixels = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
    for k, task in enumerate(TASKS):
        patches = iter([pixels[y : y + 5, x : x + 5].ravel() for y, x in corners])
        monkeypatch.setattr(np.random, "choice", lambda *_, patches=patches, **__: next(patches))
        found = quantus.FaithfulnessCorrelation(
            nr_runs=30,
            subset_size=25,
            perturb_baseline=0.0,
            similarity_func=quantus.similarity_func.correlation_spearman,
            normalise=False,
            abs=False,
            disable_warnings=True,
        )(
            model=OfGrey(path).eval(),
            x_batch=subject.images[subject.square][None, None].astype(np.float32),
            y_batch=np.array([k]),
            a_batch=subject.maps[task][None, None],
            device="cpu",
        )
        assert values["faithfulness"][task] == pytest.approx(found[0], abs=0.01)  # equal ranks but for rounding


def test_a_faithful_map_is_found_to_be(networks, model):
    """A map of how much the score drops where each patch is replaced is as faithful as can be."""
    subject = subject_of(5, sign="raw")
    image = normalised(subject)
    drops = np.zeros((SIZE, SIZE), np.float32)
    for y in range(0, SIZE, 5):
        for x in range(0, SIZE, 5):
            altered = image.clone()
            altered[:, :, y : y + 5, x : x + 5] = 0
            drops[y : y + 5, x : x + 5] = (model(image) - model(altered))[0, 1]
    subject.heatmaps.maps["Edema"] = drops
    settings = ProbeSettings(score="logit")
    values, _ = measured(faithfulness.of_patches, subject, networks, settings)
    assert values["faithfulness"]["Edema"] > 0.5 > abs(values["faithfulness_centre"]["Edema"])
    values, _ = measured(erasure.deletion, subject, networks, settings)
    assert values["deletion"]["Edema"] < values["deletion_random"]["Edema"]


# Heatmaps made anew


@pytest.mark.parametrize("method", [m for m in METHODS if m in ("gradcam", "layercam", "deeplift", "random")])
def test_sensitivity_is_that_of_a_loop(path, method):
    networks = networks_of(path, method)
    subjects = [subject_of(seed, "raw") for seed in range(2)]
    found = sensitivity.to_noise(subjects, networks, ProbeSettings(samples=3))
    for subject, (values, _) in zip(subjects, found):
        image = subject.images[subject.square].astype(np.float32)
        reach = 0.02 * (image.max() - image.min())
        noise = subject.random(0, f"noise {SIZE}").uniform(-reach, reach, (3, SIZE, SIZE)).astype(np.float32)
        copies = np.concatenate([image[None], image + noise])
        maps = np.stack([networks.maps({subject.square: copy[None]})[0] for copy in copies])
        for k, task in enumerate(TASKS):
            own = maps[0, k]
            norm = np.linalg.norm(own)
            changes = [np.linalg.norm(other[k] - own) / norm if norm else np.nan for other in maps[1:]]
            assert values["sensitivity"][task] == pytest.approx(np.max(changes), rel=1e-3, abs=1e-5, nan_ok=True)
            assert values["sensitivity_mean"][task] == pytest.approx(np.mean(changes), rel=1e-3, abs=1e-5, nan_ok=True)


def test_a_map_that_ignores_the_image_is_not_sensitive(path):
    ((values, _),) = sensitivity.to_noise([subject_of()], networks_of(path, "centre"), ProbeSettings())
    assert values["sensitivity"] == dict.fromkeys(TASKS, 0.0)


def test_sensitivity_is_quantus_for_the_same_noise(path):
    quantus = need_module("quantus")
    networks = networks_of(path, "hirescam")
    subject = subject_of(1, "raw")
    ((values, _),) = sensitivity.to_noise([subject], networks, ProbeSettings(samples=4))
    image = subject.images[subject.square].astype(np.float32)
    reach = 0.02 * (image.max() - image.min())
    noise = iter(subject.random(0, f"noise {SIZE}").uniform(-reach, reach, (4, SIZE, SIZE)).astype(np.float32))
    for k, task in enumerate(TASKS[:1]):

        def explain(model, inputs, targets, k=k, **_) -> np.ndarray:
            """Each value of a map over its share of the pixels, as quantus wants maps of the image's size."""
            maps = np.concatenate([networks.maps({subject.square: x})[:, k : k + 1] for x in inputs])
            return np.kron(maps, np.ones((SIZE // maps.shape[2], SIZE // maps.shape[3]), np.float32))

        score = quantus.MaxSensitivity(
            nr_samples=4,
            perturb_func=lambda arr, **_: arr + next(noise).ravel(),
            normalise=False,
            abs=False,
            return_nan_when_prediction_changes=False,
            disable_warnings=True,
        )(
            model=OfGrey(path).eval(),
            x_batch=image[None, None],
            y_batch=np.array([k]),
            a_batch=explain(None, image[None, None], None),
            explain_func=explain,
            device="cpu",
        )
        assert values["sensitivity"][task] == pytest.approx(score[0], rel=1e-3)  # batches of another size


@pytest.mark.parametrize("method", ["gradcam", "ig"])
def test_randomisation_is_that_of_a_loop(path, method):
    options = {"steps": 2} if method == "ig" else {}
    networks = networks_of(path, method, **options)
    subjects = [subject_of(seed, "raw") for seed in range(2)]
    found = randomisation.of_weights(subjects, networks, ProbeSettings())
    checkpoint = checkpoints.load(path)
    state = dict(networks.ensemble.members[0].network.model.state_dict())
    parts = randomisation.blocks(list(randomisation._state(networks.ensemble.members[0].network.model)))
    assert [sorted({name.rpartition(".")[0].partition(".")[0] for name in part})[0] for part in parts][-1] == "fc"
    before = [networks.maps({s.square: s.images[s.square][None]})[0] for s in subjects]
    for values, curves in found:
        assert len(curves["randomisation"]["Edema"]) == len(parts)
        assert values["randomisation_end"]["Edema"] == pytest.approx(curves["randomisation"]["Edema"][-1], nan_ok=True)
    # The third network of the cascade, by hand.
    drawn = {}
    for name in sum(parts[-3:], []):
        weight = state.get(f"{name.rpartition('.')[0]}.weight")
        drawn[name] = randomisation.reinitialised(name, state[name], weight, 0)
    other = randomisation.replaced(networks.ensemble.members[0].network.model, drawn)
    assert not torch.equal(other.state_dict()["fc.weight"], state["fc.weight"])
    assert torch.equal(networks.ensemble.members[0].network.model.state_dict()["fc.weight"], state["fc.weight"])
    from chextools.saliency.network import Network

    ensemble = networks.altered([Network(other, None, checkpoint.by_task())])
    for row, subject in enumerate(subjects):
        after = networks.maps({subject.square: subject.images[subject.square][None]}, ensemble)[0]
        for k, task in enumerate(TASKS):
            _, curves = found[row]
            expected = spearman(before[row][k], after[k])
            assert curves["randomisation"][task][2] == pytest.approx(expected, abs=0.02, nan_ok=True)


def test_a_map_that_ignores_the_network_does_not_change(path):
    ((values, curves),) = randomisation.of_weights([subject_of()], networks_of(path, "centre"), ProbeSettings())
    for key in ("randomisation", "randomisation_end", "randomisation_alone", "randomisation_ssim"):
        assert values[key] == pytest.approx(dict.fromkeys(TASKS, 1.0))
    assert set(curves["randomisation"]["Edema"]) == {1.0}


def test_randomisation_is_quantus_mprt_for_the_same_weights(path, monkeypatch):
    """It goes by single layers and draws other weights: with these, of the last layers, the cascade is the same."""
    quantus = need_module("quantus")
    from chextools.saliency.network import Network

    networks = networks_of(path, "gradcam")
    subjects = [subject_of(0, "raw")]
    original = networks.ensemble.members[0].network.model
    network = OfGrey(path).eval()
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.num_batches_tracked = torch.tensor(0)  # which it resets
    kind, count = quantus.helpers.model.pytorch_model.PyTorchModel, 8
    whole, blocks = kind.get_random_layer_generator, randomisation.blocks
    monkeypatch.setattr(kind, "get_random_layer_generator", lambda *a, **b: itertools.islice(whole(*a, **b), count))
    *_, (_, last) = kind(network, softmax=False).get_random_layer_generator(order="top_down", seed=0)
    known = original.state_dict()
    drawn = {name: tensor.clone() for name, tensor in last.network.state_dict().items() if name in known}
    monkeypatch.setattr(randomisation, "FEWEST", 1000)  # blocks are layers
    monkeypatch.setattr(randomisation, "blocks", lambda names: blocks(names)[-count:])
    monkeypatch.setattr(randomisation, "reinitialised", lambda name, *_: drawn[name])
    ((_, curves),) = randomisation.of_weights(subjects, networks, ProbeSettings())
    grey = np.stack([subject.images[subject.square] for subject in subjects])

    def explain(model, inputs, targets, **_) -> np.ndarray:
        """Each value over its share of the pixels, as quantus wants maps of the image's size."""
        state = {name: tensor.clone() for name, tensor in model.network.state_dict().items() if name in drawn}
        other = randomisation.replaced(original, state)
        ensemble = networks.altered([Network(other, None, networks.ensemble.members[0].network.columns)])
        maps = networks.maps({subjects[0].square: inputs[:, 0]}, ensemble)[:, 1:]
        return np.kron(maps, np.ones((SIZE // maps.shape[2], SIZE // maps.shape[3]), np.float32))

    monkeypatch.setattr(quantus.helpers.asserts, "assert_attributions", lambda *_, **__: None)  # it refuses flat maps

    def alike(a: np.ndarray, b: np.ndarray, **_) -> np.ndarray:
        return np.array([quantus.similarity_func.correlation_spearman(*pair) for pair in zip(a, b)])

    scores = quantus.MPRT(alike, "top_down", seed=0, abs=False, normalise=False, disable_warnings=True)(
        model=network,
        x_batch=grey[:, None].astype(np.float32),
        y_batch=np.ones(1, int),
        a_batch=explain(network, grey[:, None].astype(np.float32), None),
        explain_func=explain,
        device="cpu",
    )
    expected = [each[0] for layer, each in scores.items() if layer != "original"]
    assert np.isfinite(expected).sum() > 2
    assert curves["randomisation"]["Edema"] == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_likeness_is_quantus(path):
    quantus = need_module("quantus")
    a, b = np.random.default_rng(0).random((2, 9, 9))
    assert quantus.similarity_func.correlation_spearman(a.ravel(), b.ravel()) == pytest.approx(spearman(a, b))
    structural = quantus.similarity_func.ssim(a, b)  # it lets scikit-image take the range from the maps
    assert structural == pytest.approx(ssim(a, b, max(a.max(), b.max()) - min(a.min(), b.min())), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [
                "conv1.weight",
                "bn1.weight",
                *(f"layer{n}.{k}.conv.weight" for n in range(1, 5) for k in (0, 1)),
                "fc.weight",
            ],
            11,
        ),
        (
            [
                "features.conv0.weight",
                *(f"features.block{n}.layer{k}.weight" for n in range(9) for k in (0, 1)),
                "fc.bias",
            ],
            11,
        ),
        (["a.weight", "a.bias", "b.weight"], 2),
    ],
)
def test_blocks_are_what_names_have_in_common(names, expected):
    found = randomisation.blocks(names)
    assert len(found) == expected
    assert sum(found, []) == names
