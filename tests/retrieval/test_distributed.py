# SPDX-License-Identifier: MIT
"""Any number of processes finds, counts and reports bit for bit what one does."""

import dataclasses

import numpy as np
import pytest
import ranks
from torch import distributed

from fm_bench.errors import UserError
from fm_bench.evaluation import Protocol, evaluate
from fm_bench.processes import world
from fm_bench.retrieval import ExactIndex, basis, reduced
from fm_bench.retrieval.distributed import DistributedIndex
from fm_bench.retrieval.openers import opener

PROTOCOL = Protocol("x", 1, k=(1, 5), success=(5,), ndcg=(5,), mrr=(30,), sweep=(0.2, 0.5, 1))
N, R, A = 62, 100, 3  # cut into 31 + 31 and 20 + 21 + 21 images


def vectors(kind, images):
    """A gallery and queries with ties of every kind, also across the borders of shards."""
    rng = np.random.default_rng(0)
    gallery, queries = rng.standard_normal((images, 4)), rng.standard_normal((R, 4))
    if kind == "rounded":
        gallery, queries = np.round(gallery), np.round(queries)
    elif kind == "constant":
        gallery, queries = np.ones_like(gallery), np.ones_like(queries)
    elif kind == "flat":  # searched in few directions
        thin = np.random.default_rng(2).standard_normal((4, 32)) * 10
        gallery = gallery @ thin + 0.1 * rng.standard_normal((images, 32))
        queries = queries @ thin + 0.1 * rng.standard_normal((R, 32))
    return gallery.astype(np.float32), queries.astype(np.float32)


def report(searcher, kind, images, protocol=PROTOCOL):
    """Everything that is told of an evaluation, as plain values."""
    rng = np.random.default_rng(1)
    gallery, queries = vectors(kind, images)
    labels = rng.integers(0, 2, (images, A))
    targets = labels[rng.integers(0, images, R)]
    own = np.arange(R) * images // R  # the images at the borders of shards are among those left out
    found = evaluate(
        gallery,
        queries,
        protocol=protocol if images >= N else Protocol("few", 1, k=(1,), ndcg=(1,), mrr=(30,)),
        targets=targets,
        gallery_labels=labels,
        exclude=own,
        changed=rng.integers(0, A, (R, 2)),
        gallery_keys=rng.permutation(10 * images)[:images],
        infeasible="miss",
        searcher=searcher,
        resamples=50,
    )
    per_request = {name: values.tolist() for name, values in found.per_request.items()}
    return repr((found.as_json(), per_request, [column.tolist() for column in found.ranking]))


def spoiled():
    gallery, _ = vectors("plain", N)
    gallery[60, 2] = np.nan
    return gallery


CASES = [("plain", N), ("rounded", N), ("constant", N), ("flat", 7000), ("plain", 2)]  # 2: fewer than processes


def work(rank, folder):
    """Evaluates as one of three processes, then as one of two, then alone; NaN lies in the last process's share.

    They scan in bfloat16, whether or not that is fast here, and the test in the way of this machine.
    """
    said = {}
    reduced.supported = lambda: True
    basis._WORTH = 0  # directions are looked for in small galleries, too
    for size in (3, 2, 1):
        if size < 3:
            distributed.destroy_process_group()
            if rank >= size:
                distributed.init_process_group("gloo", init_method=f"file://{folder}/left{rank}", rank=0, world_size=1)
                return said
            address = f"file://{folder}/of{size}"
            distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
        assert world() == (rank, size)
        said[size] = [report(DistributedIndex, *case) for case in CASES]
        with pytest.raises(UserError) as error:
            DistributedIndex(spoiled(), keys=np.arange(N), seed=0)
        said[size].append(str(error.value))
    return said


def test_any_number_of_processes_reports_what_one_does(tmp_path):
    expected = [report(ExactIndex, *case) for case in CASES]
    assert len(set(expected)) == len(CASES)
    found = ranks.run(work, 3, tmp_path, tmp_path)
    assert [list(of_process) for of_process in found] == [[3, 2, 1], [3, 2], [3]]
    nan = "1 of {} gallery embeddings hold NaN or infinity, the first in row 60: "
    for rank, of_process in enumerate(found):
        for size, said in of_process.items():
            *reports, error = said
            assert reports == expected, f"process {rank} of {size}"
            failed = "" if rank == size - 1 else f"opening the gallery failed on process {size - 1}: "
            assert error.startswith(failed + nan.format({3: 21, 2: 31, 1: 62}[size]))


def asked_at_rank_zero(rank):
    """An approximate index lives on the first process, and all are told what it finds; so with what goes wrong."""
    opened = opener("IVF4,Flat;nprobe=4")
    unswept = dataclasses.replace(PROTOCOL, sweep=())
    said = [report(opened, *case, unswept) for case in CASES[:2]]
    with pytest.raises(UserError) as error:
        opened(spoiled(), keys=np.arange(N), seed=0)
    return said, str(error.value), [opened(vectors("plain", N)[0], keys=np.arange(N), seed=0).own is not None]


def test_an_approximate_index_is_asked_by_all_processes_together(tmp_path):
    pytest.importorskip("faiss")
    (first, error, has), (second, other, has_not) = ranks.run(asked_at_rank_zero, 2, tmp_path)
    assert (has, has_not) == ([True], [False])
    assert first == second
    assert error.startswith("1 of 62 gallery embeddings hold NaN")
    assert other.startswith("building the index failed on process 0: 1 of 62")
