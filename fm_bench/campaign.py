# SPDX-License-Identifier: MIT
"""Many runs, one after another: what is recorded is skipped, and a run that fails does not take the others with it.

Every run is a command in a process of its own. It can be killed for its memory, and its record tells its own memory and
its own command.
"""

import inspect
import itertools
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fm_bench import recipe
from fm_bench.bench import check_trainable
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.data.readers import READERS
from fm_bench.errors import UserError
from fm_bench.files import digest
from fm_bench.leaderboard import record as record_file
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.table import duration
from fm_bench.outcomes import refusals
from fm_bench.questions import check_protocols
from fm_bench.run_folder import default_out, digest_of, run_fingerprint

EVERY = "all"
"""Stands for every method with every variant."""
_SENTENCE = "fm-bench: "
_TRACEBACK = "Traceback (most recent call last):"
_PATIENCE = 5.0  # seconds that an interrupted run has, until it is told once more, and then ten times that
_INTERRUPTED = 130


def every_method() -> list[str]:
    """Every method and variant, as ``METHOD`` is written."""
    variants = {name: recipe.load("methods", name).get("variants", {}) for name in recipe.names("methods")}
    return [spec for name, of in variants.items() for spec in (name, *(f"{name}/{variant}" for variant in of))]


def options_of(data: str, among: Sequence[str], options: Sequence[str]) -> list[str]:
    """``options`` without those of the readers of other data sets, such as the root of photos for rendered garments.

    Args:
        data: name of the data set.
        among: the data sets that the same command runs on.
        options: what is left of the command line, e.g. ``["--data.root", "photos", "--budget", "900"]``.
    """
    known = {name: set(inspect.signature(READERS[recipe.reader_name(name)]).parameters) for name in (*among, data)}
    others = set().union(*known.values()) - known[data]
    starts = [at for at, word in enumerate(options) if word.startswith("--")] + [len(options)]
    kept = list(options[: starts[0]])
    for start, end in itertools.pairwise(starts):
        group, _, name = options[start].partition("=")[0].removeprefix("--").partition(".")
        if group != "data" or name.partition(".")[0] not in others:
            kept += options[start:end]
    return kept


@dataclass(frozen=True)
class Job:
    """One command of a campaign.

    Args:
        configs: what it runs: one configuration, or the folds of a cross-validation.
        command: arguments of ``fm-bench`` that run it.
        named: whether its method was asked for by name; one of all is passed over where the data cannot answer it.
    """

    configs: tuple[RunConfig, ...]
    command: tuple[str, ...]
    named: bool = True

    @property
    def name(self) -> str:
        """``amnet/no-memory on garments, seed 1``."""
        config = self.configs[0]
        return f"{config.label} on {config.data}, seed {config.seed}"


class Ended(NamedTuple):
    """What became of all runs: the records, in the order of the jobs, and a sentence for each job that failed."""

    records: list[Record]
    failures: dict[str, str]


@dataclass
class TimeLeft:
    """Expects of a run what runs like it have taken."""

    _taken: list[tuple[str, str, float]] = field(default_factory=list)

    def add(self, job: Job, seconds: float) -> None:
        """Notes that ``job`` has taken ``seconds``."""
        self._taken.append((job.configs[0].label, job.configs[0].data, seconds))

    def of(self, jobs: Sequence[Job]) -> float | None:
        """Seconds that ``jobs`` will take, None while nothing has finished."""
        return sum(self._expected(job) for job in jobs) if self._taken else None

    def _expected(self, job: Job) -> float:
        label, data = job.configs[0].label, job.configs[0].data
        alike = [
            [seconds for *what, seconds in self._taken if what == [label, data]],
            [seconds for _, where, seconds in self._taken if where == data],
            [seconds for *_, seconds in self._taken],
        ]
        return statistics.fmean(next(found for found in alike if found))


def run_all(
    jobs: Sequence[Job],
    runs: Path,
    say: Callable[[str], None],
    start: Callable[[Sequence[str]], str | None] | None = None,
) -> Ended:
    """Runs every job that is not recorded yet, and says what is done and how long the rest will take.

    Args:
        jobs: what to run, in this order.
        runs: where runs are kept.
        say: shows a line.
        start: runs one command of ``fm-bench`` to its end and returns a sentence if it failed; by default in a process
            of its own.
    """
    start = start or in_a_process
    places, refused = _planned(jobs, runs)
    records, failures = dict[str, list[Record]](), dict[str, str]()
    left, clock = [], TimeLeft()
    for job in jobs:
        if found := _recorded(places[job.name]):
            records[job.name] = found
            clock.add(job, sum(record.seconds.get("total", 0.0) for record in found))
        elif job.name in refused:
            say(f"{job.name} is skipped: {refused[job.name]}")
        else:
            left.append(job)
    say(f"{len(jobs)} runs: {len(records)} recorded already, {_to_go(left, clock)}")
    for number, job in enumerate(left, 1):
        say(f"run {number} of {len(left)}: {job.name}")
        began = time.perf_counter()
        failure = start(job.command)
        found = _recorded(places[job.name] or _planned([job], runs)[0][job.name])
        if found:  # a run that broke after its record was written is told, and counts
            records[job.name] = found
            clock.add(job, time.perf_counter() - began)
        elif failure is None:
            failure = f"it ended without a record below {runs}: were its code or data changed meanwhile?"
        if failure is not None:
            failures[job.name] = failure
        say(f"{job.name}: {failure or 'recorded'} ({_to_go(left[number:], clock)})")
    return Ended([record for job in jobs for record in records.get(job.name, ())], failures)


def _to_go(left: Sequence[Job], clock: TimeLeft) -> str:
    seconds = clock.of(left)
    return f"{len(left)} to go" + (f", about {duration(seconds)}" if left and seconds is not None else "")


class Place(NamedTuple):
    """Where the record of a run will lie, and the fingerprint that it will have."""

    path: Path
    fingerprint: str


class Planned(NamedTuple):
    """What is known of jobs, by their names, before any runs.

    Attributes:
        places: of their records; none for data that cannot be read, which the run itself will say.
        refused: why their data cannot answer them; nothing of those that were asked for by name.
    """

    places: dict[str, list[Place]]
    refused: dict[str, str]


def _planned(jobs: Sequence[Job], runs: Path) -> Planned:
    read: dict[str, tuple[Dataset, str]] = {}
    planned = Planned({}, {})
    for job in jobs:
        planned.places[job.name] = []
        try:
            for config in job.configs:
                asked = config.evaluation
                room = [asked.protocols, asked.gallery, asked.requests, asked.shrink]  # by which a sample may be drawn
                same = digest(config.data, config.reader, config.fold, config.loader.crop, room)
                if same not in read:
                    dataset = config.read()
                    read[same] = dataset, digest_of(dataset)
                if not job.named and (why := _refusal(config, read[same][0])):
                    planned.refused[job.name] = why
                fingerprint = run_fingerprint(config, read[same][1])
                folder = default_out(config, fingerprint, runs)
                planned.places[job.name].append(Place(folder / record_file.FILE, fingerprint))
        except UserError:
            planned.places[job.name] = []
    return planned


def _refusal(config: RunConfig, dataset: Dataset) -> str | None:
    """Why ``dataset`` allows nothing that ``config`` asks, or None."""
    try:
        check_protocols(config.evaluation, dataset)
        check_trainable(config, dataset)
        refusals(config, dataset)
    except UserError as error:
        return str(error)
    return None


def _recorded(places: Sequence[Place]) -> list[Record]:
    """The records at ``places``; none unless all are there, and of these very runs: folders tell runs apart by less."""
    if not places or not all(place.path.exists() for place in places):
        return []
    try:
        records = [record_file.load(place.path) for place in places]
    except UserError:  # the run itself says what is wrong with it
        return []
    same = all(record.fingerprint == place.fingerprint for record, place in zip(records, places, strict=True))
    return records if same else []


def in_a_process(command: Sequence[str]) -> str | None:
    """Runs ``fm-bench`` with the arguments ``command``; returns a sentence if it failed.

    Raises:
        KeyboardInterrupt: if the user interrupts it, or somebody terminates this process.
    """
    said: list[str] = [""]
    with _terminated_as_interrupted():
        process = subprocess.Popen(  # noqa: S603 our own command line
            [sys.executable, "-m", "fm_bench.cli", *command], stderr=subprocess.PIPE, text=True, errors="replace"
        )
        try:
            listener = threading.Thread(target=_show, args=(process, said), daemon=True)
            listener.start()
            status = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    listener.join(_PATIENCE)  # no longer: a killed run may leave processes behind that keep its output open
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if status < 0:
        why = ", as happens where memory runs out" if status == -signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(-status).name}{why}."
    return None if status == 0 else said[0].removeprefix(_SENTENCE) or f"it ended with status {status}."


def _show(process: subprocess.Popen[str], said: list[str]) -> None:
    """Passes on what a process writes to standard error, and keeps what it ended with in ``said``.

    That is the last line that is not empty; of an error below a traceback the first one, since many go on for more.
    """
    assert process.stderr is not None
    within = told = False
    for line in process.stderr:
        if line.startswith((_TRACEBACK, _SENTENCE)):
            within, told = line.startswith(_TRACEBACK), False
        if line.strip() and not told:
            said[0] = line.strip()
            told = within and not (line[0].isspace() or line.startswith(_TRACEBACK))
        with suppress(OSError, ValueError):  # nobody reads ours any more: the run would wait for us for ever
            sys.stderr.write(line)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, so that no run goes on without the campaign that started it."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[str]) -> None:
    """Waits for a process that has been interrupted along with this one, interrupts it if it has not, or kills it."""
    for patience, then in ((_PATIENCE, process.send_signal), (10 * _PATIENCE, lambda _: process.kill())):
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            then(signal.SIGINT)
    process.wait()


def tell_failures(failures: Mapping[str, str], asked: int, say: Callable[[str], None]) -> None:
    """Shows what became of the jobs that failed."""
    if failures:
        say(f"{len(failures)} of {asked} runs failed; the same command tries them again:")
    for name, sentence in failures.items():
        say(f"  {name}: {sentence}")
