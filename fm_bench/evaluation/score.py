# SPDX-License-Identifier: MIT
"""Judges embeddings from files, whoever trained them: what ``fm-bench score`` does."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import evaluate
from fm_bench.evaluation.protocol import Protocol, cutoffs
from fm_bench.evaluation.relevance import check_labels
from fm_bench.files import write_json
from fm_bench.retrieval.distances import F32, check_embeddings
from fm_bench.retrieval.search import check_exclusions, check_k

DEFAULT_K = (1, 5, 10, 20, 30, 50)


def score(gallery: Path, queries: Path, k: list[int], mrr_at: int, out: Path, seed: int = 0) -> dict[str, Any]:
    """Scores the embeddings of two ``.npz`` files and writes the report as JSON.

    A hit is an image that has every labelled attribute of the target. Where both files have ``item_ids``, the metrics
    whose names begin with ``instance_`` count the same item instead. Requests without any hit in the gallery count as
    misses, and their number is in the report as ``infeasible``; requests whose target has no label are left out
    (``skipped``).

    Args:
        gallery: file with ``embeddings (N, D)`` float32, ``labels (N, A)`` int with −1 = missing, and optional
            ``item_ids (N,)``.
        queries: file with ``embeddings (R, D)``, ``targets (R, A)``, optional ``item_ids (R,)`` and optional
            ``exclude (R,)``: the gallery row that a query must not find, or −1.
        k: cut-offs of ``accuracy@k``, ``ndcg@k`` and ``ndcg_ones@k``.
        mrr_at: cut-off of ``mrr@k``; may exceed the gallery.
        out: where the report goes; it is whole or not there.
        seed: of the order of ties and the resamples.

    Returns:
        The report as written.

    Raises:
        UserError: on a file that is missing or not an ``.npz``, an array that is missing or of the wrong shape or type,
            NaN, files that do not fit together, or a cut-off below 1 or beyond the gallery.
    """
    ks = cutoffs(list(k), "--k")
    if not ks:
        raise UserError("--k names no cut-off: give one or more whole numbers from 1 up.")
    (mrr,) = cutoffs([mrr_at], "--mrr-at")
    found, asked = _read(gallery, "labels"), _read(queries, "targets")
    if asked.embeddings.shape[1] != found.embeddings.shape[1]:
        raise UserError(
            f"{queries} holds embeddings of {asked.embeddings.shape[1]} dimensions, but {gallery} "
            f"of {found.embeddings.shape[1]}: embed both with the same model."
        )
    if asked.labels.shape[1] != found.labels.shape[1]:
        raise UserError(
            f"{queries} holds targets of {asked.labels.shape[1]} attributes, but {gallery} holds labels of "
            f"{found.labels.shape[1]}: use the same attributes in both."
        )
    exclude = np.full(len(asked.labels), -1) if asked.exclude is None else asked.exclude
    with _of(queries):
        exclude = check_exclusions(exclude, len(asked.labels), len(found.labels))
    with _of(gallery):
        check_k(max(ks), len(found.labels), exclude)
    report: dict[str, Any] = {"metrics": {}}
    for hit in ("attributes", "instance"):
        items = _same_kind(found.items, asked.items)
        if hit == "instance" and items is None:
            continue
        protocol = Protocol("score", changes=0, hit=hit, k=ks, ndcg=ks if hit == "attributes" else (), mrr=(mrr,))
        with _of(queries):
            result = evaluate(
                found.embeddings,
                asked.embeddings,
                protocol=protocol,
                targets=asked.labels,
                gallery_labels=found.labels,
                exclude=exclude,
                gallery_items=None if items is None else items[0],
                query_items=None if items is None else items[1],
                seed=seed,
                infeasible="miss",
            ).as_json()
        prefix = "instance_" if hit == "instance" else ""
        report["metrics"] |= {prefix + name: value for name, value in result["metrics"].items()}
        report |= {prefix + name: result[name] for name in ("requests", "skipped", "infeasible", "tied")}
    report |= {"gallery": len(found.labels), "dim": int(found.embeddings.shape[1]), "seed": seed}
    write_json(out, report)
    return report


class _File(NamedTuple):
    embeddings: F32
    labels: NDArray[np.integer[Any]]
    items: NDArray[Any] | None
    exclude: NDArray[Any] | None


class _of:  # noqa: N801 - reads as "with _of(file)"
    """Puts a file's name before what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self.path}: {error}") from error


def _read(path: Path, labels: str) -> _File:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file: give an .npz with 'embeddings' and {labels!r}.")
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise UserError(f"{path} holds a single array: save 'embeddings' and {labels!r} with np.savez.")
        with content:
            for name in ("embeddings", labels):
                if name not in content.files:
                    only = ", ".join(map(repr, content.files)) or "nothing"
                    raise UserError(f"{path} has no array {name!r}, only {only}: add it.")
            arrays = {name: content[name] for name in ("embeddings", labels, "item_ids", "exclude") if name in content}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not an .npz of plain arrays ({_start(error)}): save it with np.savez.") from error
    with _of(path):
        embeddings = check_embeddings(arrays["embeddings"], "given")
        check_labels(arrays[labels], labels, len(embeddings))
        if not len(embeddings):
            raise UserError("it holds no embedding: give at least one row.")
        items = arrays.get("item_ids")
        if items is not None and (items.shape != (len(embeddings),) or items.dtype.kind not in "iuUS"):
            raise UserError(
                f"item_ids have shape {items.shape} and type {items.dtype}, "
                f"but {len(embeddings)} integers or texts are needed."
            )
    return _File(np.ascontiguousarray(embeddings), arrays[labels], items, arrays.get("exclude"))


def _start(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]


def _same_kind(
    gallery: NDArray[Any] | None, queries: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Item ids as integers that agree over both files; None unless both have them."""
    if gallery is None or queries is None:
        return None
    if (gallery.dtype.kind in "iu") != (queries.dtype.kind in "iu"):
        raise UserError(
            f"item_ids are {gallery.dtype} in the gallery but {queries.dtype} in the queries: use one kind in both."
        )
    _, numbers = np.unique(np.concatenate((gallery, queries)), return_inverse=True)
    return numbers[: len(gallery)].astype(np.int64), numbers[len(gallery) :].astype(np.int64)
