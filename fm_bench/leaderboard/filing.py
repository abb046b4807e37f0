# SPDX-License-Identifier: MIT
"""Records that are published: checked when they are filed, and watched ever after.

Beside the folder of records lies a list of SHA-256 sums of all files in it, which ``sha256sum --check`` understands as
well: records, results for every request, and what method pages show beside them. ``add`` writes it, so a file that was
changed by hand afterwards differs from its line.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

import fm_bench
from fm_bench import recipe
from fm_bench.errors import UserError
from fm_bench.files import digest, replacing, write_text
from fm_bench.leaderboard.compare import Run
from fm_bench.leaderboard.extras import FOLDER, add_extras, files_of, load_extras, remove_extras
from fm_bench.leaderboard.folds import fold_of
from fm_bench.leaderboard.record import FILE, Record, find, load, requests_file, save
from fm_bench.leaderboard.rows import flat, settings

_STATED = ("method", "variant", "data", "profile", "mode", "seed")
"""What a record and its own configuration both say."""
_DERIVED = re.compile(r"^increment_ratio@|_p\d+$")
"""Metrics that are no mean over requests: a ratio of two means, and percentiles."""


def add(run: Path, folder: Path, *, replace: bool = False) -> Path:
    """Files the record of the run in ``run``, with its per-request results beside it, among those in ``folder``.

    What the run left for its method's page is filed as well, see ``fm_bench.leaderboard.extras``.

    Args:
        run: the run's folder.
        folder: of the filed records.
        replace: whether it takes the place of records of the same run: same method, data, settings and seed, but run at
            another time or with other code or data.

    Returns:
        Where it was filed: ``garments-quick-common-amnet-no_memory-seed0-1a2b3c4d.json``.

    Raises:
        UserError: if there is no record, if it does not hold its schema, if it or its per-request results cannot be
            what this version of fm-bench would write, if the same run is filed already and ``replace`` is not set, or
            if the file system refuses.
    """
    source = Path(run) / FILE
    record = load(source)
    found = (*wrong_with(record), *_wrong_fingerprint(record), *_wrong_requests(Run(record, requests_file(source))))
    for wrong in found:
        raise UserError(f"{source} was not filed: {wrong}")
    path = Path(folder) / f"{_stem(record)}.json"
    older = [known for known in _same_run(record, folder) if known != path or known.read_bytes() != source.read_bytes()]
    if older and not replace:
        raise UserError(
            f"{folder} has a record of this run already, {older[0].name}: add --replace to put this one in its place."
        )
    with replacing(requests_file(path)) as temporary:
        shutil.copyfile(requests_file(source), temporary)
    save(record, path)
    add_extras(run, path)
    gone = [known for known in older if known != path]
    for known in gone:
        known.unlink()
        requests_file(known).unlink(missing_ok=True)
        remove_extras(known)
    _write(folder, _read(folder) | _sums(_files(path), folder), without=gone)
    return path


def file_extras(run: Path, folder: Path) -> list[Path]:
    """Files the extras of the run in the folder ``run`` beside its record in ``folder``, which stays as it is.

    Returns:
        The files that were written; none where the run left nothing for its page.

    Raises:
        UserError: if a file of the run is damaged, or if its record was not filed in ``folder``.
    """
    fingerprint = load(Path(run) / FILE).fingerprint
    for path in find(folder):
        if load(path).fingerprint == fingerprint:
            written = add_extras(run, path)
            if written:
                _write(folder, _read(folder) | _sums(written, folder))
            return written
    raise UserError(f"{folder} has no record of the run in {run}: file it with `fm-bench leaderboard add`.")


def list_extras(folder: Path) -> list[Path]:
    """Notes the sums of extras that were filed in ``folder`` before the list held any; lines that are there stay.

    Returns:
        The files that have a line now and had none.

    Raises:
        UserError: if one of them is damaged, was changed or is of another run than the record beside it.
    """
    listed = _read(folder)
    found = []
    for path in find(folder):
        new = [file for file in files_of(path) if file.exists() and _name(file, folder) not in listed]
        if new:
            load_extras(path)
        found += new
    if found:
        _write(folder, listed | _sums(found, folder))
    return found


def problems(folder: Path) -> list[str]:
    """One sentence for everything that is wrong with the records filed in ``folder``.

    A record may be unreadable, edited, gone or filed by hand, contradict itself or its per-request results, or know
    another definition of a protocol than its table does. Raises UserError if ``folder`` is not a folder, or the list of
    sums cannot be read.
    """
    found, records = [], []
    for path in find(folder):
        try:
            record = load(path)
        except UserError as error:
            found.append(str(error))
            continue
        records.append(record)
        found += [f"{path}: {wrong}" for wrong in (*wrong_with(record), *_wrong_place(record, path, folder))]
        if requests_file(path).exists():  # the list tells where it is not
            found += [f"{path}: {wrong}" for wrong in _wrong_requests(Run(record, requests_file(path)))]
    every = [*Path(folder).iterdir(), *(Path(folder) / FOLDER).glob("*")]
    files = [path for path in every if path.is_file() and not path.name.startswith(".")]
    listed, present = _read(folder), _sums(files, folder)
    where = _list_of(folder)
    for name in sorted({**listed, **present}):
        if name not in present:
            found.append(f"{Path(folder) / name} is gone, but {where} lists it: restore it, or remove its line.")
        elif name not in listed:
            command = "extras" if name.startswith(f"{FOLDER}/") else "add"
            found.append(f"{Path(folder) / name} is not in {where}: file it with `fm-bench leaderboard {command}`.")
        elif listed[name] != present[name]:
            found.append(f"{Path(folder) / name} was edited after it was filed: restore it, or file the run again.")
    return found + mixed(records)


def wrong_with(record: Record) -> list[str]:
    """What this version of fm-bench would not have written into ``record``, a sentence each."""
    found = []
    for name in _STATED:
        stated, configured = getattr(record, name), record.config.get(name)
        if configured is not None and configured != stated:
            found.append(f"{name} is {stated!r}, but its run was configured with {configured!r}: run it again.")
    if record.label != record.name:
        found.append(f"label is {record.label!r}, but it is a run of {record.name}: run it again.")
    known = recipe.names("protocols")
    for name, definition in record.protocols.items():
        if name not in known:
            found.append(f"its protocol {name!r} is not among those of this version: see `fm-bench list protocols`.")
        elif definition != _definition(name):
            found.append(f"its protocol {name!r} was defined otherwise than it is now: run it again.")
    found += _wrong_tuning(record)
    sums = {"fingerprint": record.fingerprint, "data_digest": record.data_digest, "code.digest": record.code["digest"]}
    sums |= {f"request_digests.{name}": asked for name, asked in record.request_digests.items()}
    for name, value in sums.items():
        if not _is_sum(value):
            found.append(f"{name} is {value!r}, which is no SHA-256 digest: run it again.")
    version = record.code["version"]
    if _number(version) > _number(fm_bench.__version__):
        found.append(f"it was written by fm-bench {version}, which is newer than this {fm_bench.__version__}: update.")
    if record.code.get("git", "").endswith("-dirty"):
        found.append("its code had changes that no commit holds: commit them and run it again.")
    return found


def mixed(records: Iterable[Record]) -> list[str]:
    """A sentence for every table whose rows would be judged by different definitions of one protocol."""
    definitions: dict[tuple[str, str, str, str], dict[str, Record]] = {}
    for record in records:
        for protocol, definition in record.protocols.items():
            place = (record.data, record.profile, record.mode, protocol)
            definitions.setdefault(place, {}).setdefault(definition, record)
    return [
        f"{' · '.join(place)}: {' and '.join(record.name for record in by.values())} were judged by different "
        "definitions of the protocol: run the older ones again, or remove them."
        for place, by in definitions.items()
        if len(by) > 1
    ]


def _wrong_place(record: Record, path: Path, folder: Path) -> list[str]:
    """What is wrong with where a record lies: tables take it from anywhere below ``folder``, the list does not."""
    if path.parent == Path(folder) and path.name == f"{_stem(record)}.json":
        return []
    return [f"a record of this run is filed as {_stem(record)}.json: file it with `fm-bench leaderboard add`."]


def _wrong_tuning(record: Record) -> list[str]:
    """What the ledger of a search says otherwise than the record that claims to use the best of it."""
    if not record.tuning and not record.config.get("tuned"):
        return []
    from fm_bench.tuning import Ledger  # imports torch, which few who read records need

    if record.config.get("tuned") != digest(record.tuning):
        return ["its ledger of trials is not the one that its run was configured with: run it again."]
    try:
        ledger = Ledger.from_json(record.tuning)
    except ValueError as error:
        return [f"its ledger of trials could not be read ({error}): tune again."]
    best = ledger.best
    if (ledger.method, ledger.data) != (record.name, record.data) or best is None:
        return [f"its ledger of trials is of {ledger.method} on {ledger.data}: run it again with its own."]
    has = flat(record.config)
    other = [name for name, value in best.parameters.items() if has.get(name.replace("method.", "hyper.", 1)) != value]
    return [f"{name} is not that of its best trial: run it again without this option." for name in other]


def _wrong_fingerprint(record: Record) -> list[str]:
    """Whether the fingerprint is another than what it is a digest of: settings, data, protocols, method and code.

    It is that of an earlier version of the method, too. What protocols were that the data could not answer is not in a
    record, so that only today's definition tells: this is asked when a record is filed, and not again.
    """
    from fm_bench.methods import METHODS  # imports torch

    asked = record.config.get("evaluation")
    if asked is None or record.config.get("source") or record.method not in METHODS:
        return []
    configured = {name: value for name, value in record.config.items() if name != "training_images"}
    names = (*asked.get("protocols", ()), *asked.get("also", ()))
    protocols = {name: record.protocols.get(name) or _definition(name) for name in names}
    versions = range(1, METHODS[record.method].version + 1)
    of = (configured, record.data_digest, protocols)
    if record.fingerprint in (digest(*of, version, record.code["digest"]) for version in versions):
        return []
    return ["its fingerprint is not that of its settings, data, protocols and code: restore it, or run it again."]


def _wrong_requests(run: Run) -> list[str]:
    """What is wrong with the per-request results of a run."""
    try:
        with np.load(run.path, allow_pickle=False) as arrays:
            names = [name.partition("/")[::2] for name in arrays.files]
        for protocol, metrics in run.record.metrics.items():
            if unproved := [each for each in metrics if (protocol, each) not in names and not _DERIVED.search(each)]:
                return [f"{run.path.name} has no {unproved[0]} of {protocol}, which the record states: run it again."]
        for protocol, metric in names:
            if metric in run.record.metrics.get(protocol, {}):
                run.per_request(protocol, metric)
    except FileNotFoundError:
        return [f"{run.path.name} is missing beside it, without which nothing can be compared: run it again."]
    except UserError as error:
        return [str(error)]
    except Exception as error:  # a damaged archive fails in many ways
        return [f"{run.path.name} beside it could not be read ({error}): run it again."]
    return []


def _definition(protocol: str) -> str:
    from fm_bench.questions import load_protocol  # imports torch, which few who read records need

    return load_protocol(protocol).digest


def _same_run(record: Record, folder: Path) -> list[Path]:
    """Filed records of the same method, data, settings and seed."""
    return [path for path in (find(folder) if Path(folder).is_dir() else []) if _run_of(load(path)) == _run_of(record)]


def _run_of(record: Record) -> tuple[str, ...]:
    which = digest(record.seed, fold_of(record), settings(record))
    return record.data, record.profile, record.mode, record.name, which


def _stem(record: Record) -> str:
    parts = (record.data, record.profile, record.mode, record.method, record.variant, f"seed{record.seed}")
    return "-".join(re.sub(r"\W+", "_", part).strip("_") for part in (*parts, record.fingerprint[:8]) if part)


def _is_sum(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _list_of(folder: Path) -> Path:
    """``leaderboards/records.sha256`` for ``leaderboards/records``."""
    folder = Path(folder)
    return folder.with_name(f"{folder.name}.sha256")


def _files(path: Path) -> list[Path]:
    """The files of the record at ``path`` that are there."""
    return [file for file in (path, requests_file(path), *files_of(path)) if file.exists()]


def _name(path: Path, folder: Path) -> str:
    """How the list of ``folder`` calls a file in it."""
    return path.relative_to(folder).as_posix()


def _sums(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    return {_name(path, folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _read(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as listed. Raises UserError if the list is damaged."""
    path = _list_of(folder)
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    if any(len(pair) != 2 or not _is_sum(pair[0]) for pair in pairs):
        raise UserError(f"{path} holds a line that is no SHA-256 sum with a file name: restore it.")
    return {name: total for total, name in pairs}


def _write(folder: Path, sums: Mapping[str, str], without: Iterable[Path] = ()) -> None:
    gone = {_name(file, folder) for path in without for file in (path, requests_file(path), *files_of(path))}
    lines = [f"{total}  {name}\n" for name, total in sorted(sums.items()) if name not in gone]
    write_text(_list_of(folder), "".join(lines))
