# SPDX-License-Identifier: MIT
"""Embeddings are computed once for all that is asked, anew for any other weight, and alike on many processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import ranks
import torch
from commands import bench, numbers
from disk import full

import fm_bench
from fm_bench import environment
from fm_bench.bench import build_method, data_module
from fm_bench.cli import main
from fm_bench.config import configure
from fm_bench.data.requests import mine
from fm_bench.embedding import Embedder, StoreWriting, embed_to_store, weights_digest
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import load
from fm_bench.retrieval import EmbeddingStore
from fm_bench.reuse import recall, remember


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the stores that were computed, and not found."""
    names: list[str] = []
    start = StoreWriting.on_predict_start

    def counted(self, *arguments):
        names.append(self.store.path.name)
        start(self, *arguments)

    monkeypatch.setattr(StoreWriting, "on_predict_start", counted)
    return names


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache in which no other test has left anything."""
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(protocol: str, out: Path, *more: str) -> int:
    """A run of AMNet, which has two stages, that is asked by one protocol."""
    return bench("amnet", "--evaluation.protocols", f'["{protocol}"]', *more, out=out)


# ------------------------------------------------------------------ what is computed again, and what is not


@pytest.mark.slow
def test_what_is_asked_after_training_costs_no_training_and_no_gallery(tmp_path, cache, computed, capsys):
    first, second, again = tmp_path / "first", tmp_path / "second", tmp_path / "again"
    assert ask("search", first) == 0
    assert computed == ["gallery", "search"]
    capsys.readouterr()
    assert ask("manipulate-1", second, "--evaluation.requests", "50") == 0
    assert computed[2:] == ["manipulate-1"]  # other requests alone
    told = capsys.readouterr().err
    assert told.count("trained by an equal run") == 2
    one, other = (next((run / "embeddings").glob("gallery-*.npy")) for run in (first, second))
    assert one.samefile(other)
    one, other = (json.loads((run / "record.json").read_text()) for run in (first, second))
    assert one["seconds"]["embed_gallery"] == other["seconds"]["embed_gallery"]  # whoever computed it
    assert one["seconds"]["train"] == other["seconds"]["train"]
    shutil.rmtree(first)  # takes nothing away from the second
    assert main(["evaluate", str(second), "--protocol", "manipulate-1"]) == 0
    assert main(["evaluate", str(second), "--protocol", "gallery-sweep-1"]) == 0  # asks the same, counts otherwise
    assert len(computed) == 3
    capsys.readouterr()
    assert ask("manipulate-1", again, "--evaluation.requests", "50") == 0  # a repetition shows if numbers come again
    assert "equal run" not in capsys.readouterr().err.replace("attributes: trained by an equal run", "")  # it is shared
    assert computed[3:] == ["gallery", "manipulate-1"]
    repeated, recorded = numbers(again), numbers(second)
    assert repeated == recorded


def test_a_damaged_store_is_computed_anew_and_said_so(tmp_path, cache, computed, capsys):
    run = tmp_path / "run"
    assert bench("identity", out=run) == 0
    (vectors,) = (run / "embeddings").glob("gallery-*.npy")
    before, asked = np.load(vectors), len(computed)
    searched = json.loads((run / "record.json").read_text())["search"]
    assert searched["embeddings_mb"] > before.nbytes / 2**20
    assert 0 <= searched["peak_memory_mb"] < 1000 or not sys.platform.startswith("linux")
    os.truncate(vectors, 1000)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--protocol", "search"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.endswith("computed anew")]
    assert f"{vectors.name} is damaged" in line
    assert computed[asked:] == ["gallery"]
    np.testing.assert_array_equal(np.load(vectors), before)


@pytest.fixture(scope="module")
def trained():
    """A method that was never trained, which is enough to be digested, with its data and the queries of a protocol."""
    config = configure("amnet", "garments", "smoke", "common", 0)
    data = data_module(config, config.read())
    data.setup("predict")
    return config, build_method(config, data).eval(), data


def made_of(method, data, **trainer) -> str:
    return Embedder(method, data, trainer, "", print).made_of


def test_any_changed_weight_or_hyperparameter_is_another_key(trained, monkeypatch):
    _, method, data = trained
    before = made_of(method, data)
    state = method.state_dict()
    for tensor in (next(iter(state.values())), list(state.values())[-1]):  # the first weight, the last number
        flat = tensor.detach().reshape(-1)
        old = flat[-1].clone()
        flat[-1] = torch.nextafter(old, old + 1) if old.is_floating_point() else old + 1
        assert made_of(method, data) != before
        flat[-1] = old
    assert made_of(method, data) == before
    with monkeypatch.context() as patch:
        patch.setitem(method.hparams, "normalize", not method.hparams["normalize"])
        assert made_of(method, data) != before
    with monkeypatch.context() as patch:
        patch.setattr(type(method), "version", method.version + 1)
        assert made_of(method, data) != before
    with monkeypatch.context() as patch:
        patch.setitem(method.hparams, "weights", "/anywhere.pt")  # only the beginning of training
        assert made_of(method, data) == before


def test_every_kind_of_number_is_digested(trained):
    _, method, _ = trained
    seen = {weights_digest(method)}
    for tensor in (torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(6).bfloat16(), torch.zeros(0)):
        method.register_buffer("extra", tensor)
        seen.add(weights_digest(method))
    method.register_buffer("extra", torch.tensor(1))
    seen.add(weights_digest(method))
    del method.extra
    assert len(seen) == 7
    assert weights_digest(method) in seen


def test_pictures_precision_and_code_are_in_the_key(trained, monkeypatch):
    config, method, data = trained
    before = made_of(method, data)
    assert made_of(method, data, precision="bf16-mixed") != before
    assert made_of(method, data, deterministic=True) != before
    assert made_of(method, data, enable_progress_bar=False, max_epochs=3) == before
    larger = data_module(replace(config, loader=replace(config.loader, image_size=48)), data.dataset)
    assert made_of(method, larger) != before
    for part in (data.dataset.catalog, data.dataset.source):
        with monkeypatch.context() as patch:
            patch.setitem(part.__dict__, "digest", "other")
            assert made_of(method, data) != before
    for name in ("code_to_vectors", "made_with"):
        with monkeypatch.context() as patch:
            patch.setattr(f"fm_bench.embedding.{name}", lambda *_: "other")
            assert made_of(method, data) != before


def test_a_subset_or_another_order_of_the_gallery_is_another_store(trained, tmp_path, monkeypatch):
    _, method, data = trained
    keys = []
    monkeypatch.setattr(Embedder, "_stored", lambda self, loader, n, path, key, of: keys.append((key, n)))
    embedder = Embedder(method, data, {}, "", print)
    embedder.gallery(tmp_path)
    rows = data.gallery_rows
    for others in (rows[::-1], rows[:-1], rows):
        monkeypatch.setattr(type(data), "gallery_rows", others)
        embedder.gallery(tmp_path)
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_how_is_counted_is_no_part_of_the_key_and_code_before_vectors_is(tmp_path, monkeypatch):
    package = tmp_path / "fm_bench"
    shutil.copytree(Path(fm_bench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fm_bench, "__file__", str(package / "__init__.py"))

    def digests() -> tuple[str, str]:
        environment._digest_without.cache_clear()
        return environment.code_to_vectors(), environment.code_digest()

    vectors, everything = digests()
    for name in ("evaluation/metrics.py", "retrieval/index.py", "bench.py"):
        with (package / name).open("a") as file:
            file.write("\n# changed\n")
        assert digests()[0] == vectors
        assert digests()[1] != everything
    for name in ("methods/amnet.py", "nn/backbones.py", "data/transforms.py", "embedding.py", "attributes.py"):
        with (package / name).open("a") as file:
            file.write("\n# changed\n")
        assert digests()[0] != vectors
        vectors, everything = digests()
    for name in ("data/fetching.py", "data/validate.py", "commands/data.py"):
        with (package / name).open("a") as file:
            file.write("\n# changed\n")
        assert digests() == (vectors, everything)
    monkeypatch.undo()
    environment._digest_without.cache_clear()


@pytest.mark.parametrize("part", ["methods", "nn", "data", "attributes.py", "catalog.py"])
def test_what_makes_vectors_does_not_use_what_judges_them(part):
    place = Path(fm_bench.__file__).parent / part
    for file in [place] if place.suffix else place.rglob("*.py"):
        text = file.read_text()
        for apart in environment._APART_FROM_VECTORS:
            module = f"fm_bench.{apart.removesuffix('.py')}"
            assert f"from {module} " not in text or module == "fm_bench.processes", file
            assert f"from {module}." not in text, file


# ------------------------------------------------------------------ notes about other runs


def test_a_run_takes_from_others_and_not_from_its_repetition(tmp_path, cache):
    place, other = tmp_path / "a" / "embeddings" / "gallery", tmp_path / "b" / "embeddings" / "gallery"
    assert recall("embeddings", "key", other, "run") is None
    remember("embeddings", "key", place, "run")
    assert recall("embeddings", "key", other, "another") == place
    assert recall("embeddings", "key", other, "run") is None
    assert recall("embeddings", "key", place, "another") is None  # it would find itself
    assert recall("embeddings", "key", place.with_name("search"), "run") == place  # in the same folder
    assert recall("embeddings", "other key", other, "another") is None
    assert recall("stages", "key", other, "another") is None


def test_what_was_taken_over_stays_the_work_of_the_run_that_computed_it(trained, tmp_path, cache, monkeypatch):
    _, method, data = trained
    computed = []

    def embed(_, __, ___, n, path, key, *____):
        store = EmbeddingStore(path)
        if not store.ready(key):
            computed.append(path.parent.name)
            writer = store.create(n, 1, key)
            writer.write(np.arange(n), np.ones((n, 1), np.float32))
            writer.finish()
        return store.open(key)

    monkeypatch.setattr("fm_bench.embedding.embed_to_store", embed)
    monkeypatch.setattr(Embedder, "made_of", "the same")
    said: list[str] = []
    for run, folder in (("run", "first"), ("other", "second"), ("run", "again"), ("third", "third")):
        Embedder(method, data, {}, run, said.append).gallery(tmp_path / folder / "gallery")
    assert computed == ["first", "again"]  # which takes nothing of its own from the second
    assert said == []
    with next((tmp_path / "again").glob("*.npy")).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    Embedder(method, data, {}, "fourth", said.append).gallery(tmp_path / "fourth" / "gallery")
    assert computed[2:] == ["fourth"]
    assert len(said) == 1
    assert said[0].endswith("changed after it was written: computed anew")


def test_a_cache_that_cannot_be_written_costs_the_note_alone(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "file"))
    remember("embeddings", "key", tmp_path / "x", "run")
    assert recall("embeddings", "key", tmp_path / "y", "other") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"place": 1, "run": 2}'])
def test_a_damaged_note_is_no_note(tmp_path, cache, text):
    remember("stages", "key", tmp_path, "run")
    (note,) = (cache / "stages").iterdir()
    note.write_text(text)
    assert recall("stages", "key", tmp_path / "x" / "y", "another") is None


def test_processes_that_cannot_wait_for_each_other_take_nothing(tmp_path, cache, monkeypatch):
    remember("stages", "key", tmp_path, "run")
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    for started in (torchrun, {"SLURM_STEP_NUM_TASKS": "2"}):
        with monkeypatch.context() as patch:
            for name, value in started.items():
                patch.setenv(name, value)
            assert recall("stages", "key", tmp_path / "x" / "y", "another") is None
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of the job, in which this process was started alone
    assert recall("stages", "key", tmp_path / "x" / "y", "another") == tmp_path


# ------------------------------------------------------------------ many processes


def embed(rank: int, world: int, out: Path, failing: str) -> str:
    """One of several processes embeds its share of a gallery, and of queries; what it says of a failure."""
    config = configure("amnet", "garments", "smoke", "common", 0)
    datamodule = data_module(config, config.read())
    datamodule.setup("predict")
    method = build_method(config, datamodule).eval()
    embed_gallery = method.embed_gallery

    def broken(images, context=None):
        vectors = embed_gallery(images, context)
        if rank == world - 1 and len(images) > 1 and failing == "nan":
            vectors[0, 0] = float("nan")
        return vectors

    method.embed_gallery = broken
    rows = datamodule.gallery_rows
    requests = mine(datamodule.dataset.catalog, rows, rows, changes=1, limit=90, cap=4, seed=0)
    strategy = "ddp" if world > 1 else "auto"
    trainer = {"devices": world, "accelerator": "cpu", "strategy": strategy, "enable_progress_bar": False}
    gallery, queries = datamodule.gallery_dataloader(), datamodule.query_dataloader(requests)
    with mock.patch.object(os, "posix_fallocate", full) if failing == "disk" else nullcontext():
        try:
            for name, loader, size in (("gallery", gallery, 300), ("queries", queries, len(requests))):
                embed_to_store(method, datamodule, loader, size, out / name, "key", trainer)
        except UserError as error:
            return str(error)
    return ""


def embed_together(world: int, folder: Path, failing: str = "") -> list[str]:
    """What each of ``world`` processes says of a failure; they write to a folder ``out`` in ``folder``."""
    (folder / "out").mkdir(parents=True)
    if world == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as many everywhere, so that sums are cut the same way
        try:
            return [embed(0, 1, folder / "out", failing)]
        finally:
            torch.set_num_threads(threads)
    return ranks.run(embed, world, folder, world, folder / "out", failing)


@pytest.mark.slow
def test_two_and_three_processes_give_the_same_vectors_as_one(tmp_path):
    for devices in (1, 2, 3):  # 90 requests in batches of 64: some process has none
        assert embed_together(devices, tmp_path / str(devices)) == [""] * devices
    for name in ("gallery", "queries"):
        one, *others = (np.load(next((tmp_path / devices / "out").glob(f"{name}-*.npy"))) for devices in "123")
        for vectors in others:
            assert np.array_equal(one, vectors)
        assert np.isfinite(one).all()
        assert len(np.unique(one.round(4), axis=0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "told"),
    [
        ("nan", r"1 of \d+ embeddings .* hold NaN or infinity"),
        ("disk", "No space left on device"),
    ],
)
def test_what_fails_on_one_process_fails_on_all_and_leaves_nothing(tmp_path, failing, told):
    for said in embed_together(2, tmp_path, failing):
        assert re.search(told, said)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_the_bench_runs_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "fm_bench.cli", "bench", "amnet", "--profile", "smoke"]
    ddp = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FM_BENCH_CACHE": str(tmp_path / "cache")}
    subprocess.run(
        [*command, *ddp, "--out", tmp_path / "run"], env=environment, check=True, capture_output=True, timeout=300
    )
    record = load(tmp_path / "run" / "record.json")
    assert record.config["trainer"] == {"devices": "2", "accelerator": "cpu", "strategy": "ddp"}
    assert main(["evaluate", str(tmp_path / "run"), "--protocol", "search"]) == 0
