"""chex-probe: whether heatmaps follow the network: deletion, insertion, ROAD, faithfulness, sensitivity, randomisation.

from chextools import probe
items = probe.read(["maps.jsonl"], stdin)
run = probe.start(items, ["best.pt"], probe.ProbeSettings(metrics=("deletion",)))
for record in run.records(): ...
run.summary.rows(1000)
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from chextools.errors import InputError
from chextools.heatmaps.reading import heatmaps_of
from chextools.inputs import image_lists, inputs
from chextools.models import inference
from chextools.plumbing import jsontext
from chextools.plumbing.journal import Journal
from chextools.plumbing.parallel import default_jobs
from chextools.probing.probes import PROBES, ProbeSettings
from chextools.probing.summary import Summary
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.records.tally import Tally

if TYPE_CHECKING:
    from chextools.probing.networks import Networks

log = logging.getLogger(__name__)


def read(
    sources: Sequence[str],
    stdin: BinaryIO,
    xrays: str | None = None,
    root: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Iterator[Located | Failure]:
    """Heatmap records, each with the image that it is of, and what else is known of that.

    sources: paths, or - for `stdin`. xrays: where the images are, by id, of heatmaps that do not say; a CSV's paths are
    taken against `root`. Records without an image become failures.
    """
    known = _by_id(image_lists.read_image_lists([xrays], stdin, root=root), xrays) if xrays else {}
    for item in records.select_shard(inputs.read_all(sources, stdin), shard):
        if isinstance(item, Located) and not isinstance(item.record.get("image"), str):
            found = known.get(item.record["id"])
            if found is None:
                why = f"{xrays} has no X-ray of this id" if xrays else 'no "image" key: name the X-rays with --images'
                yield Failure(item.where, why)
                continue
            item = Located(item.where, records.ordered(found | item.record))
        yield item


def _by_id(items: Iterable[Located | Failure], where: str) -> dict[str, dict]:
    found = {}
    for item in items:
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        found[item.record["id"]] = item.record
    if not found:
        raise InputError(f"{where}: no X-rays")
    return found


def start(
    items: Iterable[Located | Failure],
    paths: Sequence[str],
    settings: ProbeSettings,
    device: str = "auto",
    batch_size: int | None = None,
    *,
    output: str | None = None,
    resume: bool = False,
) -> Run:
    """A run over heatmap records, with the checkpoints loaded.

    output: the file that the records will be written to, beside which a journal lets a killed run go on (resume).
    Raises InputError for an input or checkpoint that cannot be used.
    """
    first, items = first_of(items)
    networks = None if first is None else load(paths, settings, first, device, batch_size)
    return Run(items, networks, settings, Journal(output, _id_of) if output and resume else None)


class Run:
    """Heatmap records on their way through the probes.

    summary: gathers what becomes rows; None where there are no records.
    """

    def __init__(
        self,
        items: Iterable[Located | Failure],
        networks: Networks | None,
        settings: ProbeSettings,
        journal: Journal | None,
    ):
        self._items, self.networks, self._settings, self._journal = items, networks, settings, journal
        self.summary = None if networks is None else Summary(settings, networks.ensemble.tasks)

    def records(self, tally: Tally | None = None, jobs: int | None = None) -> Generator[dict, None, None]:
        """The records with what was found, each as soon as its group of images is done."""
        tally = tally or Tally()
        if self.networks is None or self.summary is None:
            yield from tally.passing(self._items)
            return
        with contextlib.ExitStack() as stack:
            if self._journal is not None:
                stack.enter_context(self._journal.kept_until_done())
            found = apply(self._items, self.networks, self._settings, jobs, self._finished)
            stack.enter_context(contextlib.closing(found))
            for record in tally.passing(tally.progress(found, "CXRs")):
                self.summary.add(record)
                if self._journal is not None:
                    self._journal.add(record["id"], f"{jsontext.dumps(record)}\n".encode("ascii"))
                yield record

    def lines(self, tally: Tally | None = None, jobs: int | None = None) -> Generator[str, None, None]:
        """`records` as JSON Lines."""
        found = self.records(tally, jobs)
        with contextlib.closing(found):
            for record in found:
                yield f"{jsontext.dumps(record)}\n"

    def _finished(self, identifier: str) -> dict | None:
        if self._journal is None or identifier not in self._journal:
            return None
        record = jsontext.loads(self._journal.line(identifier))
        return record if isinstance(record, dict) else None


def _id_of(line: bytes) -> str | None:
    try:
        record = jsontext.loads(line)
    except InputError:
        return None
    found = record.get("id") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None


def load(
    paths: Sequence[str],
    settings: ProbeSettings,
    first: Mapping[str, Any],
    device: str = "auto",
    batch_size: int | None = None,
) -> Networks:
    """The checkpoints, ready to probe heatmaps like those of the first record.

    Raises InputError, before any image is read, for what cannot be done: a task that a network does not have, or
    heatmaps to be made anew that do not say by which method of chex-cam.
    """
    from chextools.probing.networks import Networks
    from chextools.saliency.ensembles import Ensemble
    from chextools.saliency.methods import METHODS
    from chextools.saliency.settings import MethodSettings

    remaking = [name for name in settings.metrics if PROBES[name].remakes]
    method = None
    if remaking:
        said = _method_of(dict(first))
        what = f"{' and '.join(remaking)} make heatmaps anew"
        if not said:
            raise InputError(f"{what}: {first['id']} does not say by which method of chex-cam")
        try:
            method = MethodSettings.parsed(said)
        except InputError as error:
            raise InputError(f"{what}: {error}") from None
        if method.method == "mean":
            raise InputError(f"{what}, and the mean of other images' heatmaps is of no network")
    with inference.one_thread():
        if method is None:
            ensemble = Ensemble(paths, METHODS["random"], settings.tasks, None, device)
        else:
            ensemble = Ensemble(paths, METHODS[method.method], settings.tasks, method.layer, device, method.check)
            for square in ensemble.squares:
                method.label(square.size)
    return Networks(ensemble, method, batch_size)


def apply(
    items: Iterable[Located | Failure],
    networks: Networks,
    settings: ProbeSettings,
    jobs: int | None = None,
    finished: Callable[[str], dict | None] = lambda _: None,
) -> Generator[Located | Failure, None, None]:
    """Records with the values of each probe by task, in order, group by group of images.

    finished: the record of an id that a former run has made, else None; where it is of the same probes and model it is
    passed on as it is.
    """
    from chextools.probing.prober import Finished, Prober

    prober = Prober(networks, settings)

    def prepared() -> Iterator[Located | Failure | Finished]:
        for item in items:
            record = finished(item.record["id"]) if isinstance(item, Located) else None
            yield Finished(item.where, record) if record is not None and prober.made(record) else item

    with inference.threads():
        squares = tuple(networks.ensemble.squares)
        groups = inference.batches(prepared(), squares, prober.group_size(), jobs or default_jobs())
        found = inference.computed(groups, prober.probed, networks.ensemble.workers())
        with contextlib.closing(found):
            for group in found:
                yield from group


def first_of(items: Iterable[Located | Failure]) -> tuple[dict | None, Iterator[Located | Failure]]:
    """The first usable record, None where there is none, and all items."""
    items = iter(items)
    seen = []
    for item in items:
        seen.append(item)
        if isinstance(item, Located):
            return item.record, itertools.chain(seen, items)
    return None, iter(seen)


def _method_of(record: dict) -> str | None:
    said = record.get("method")
    return said if isinstance(said, str) else heatmaps_of(record).method
