# SPDX-License-Identifier: MIT
"""The definitions written out slowly, one request at a time: what the fast code is compared with."""

import math

import numpy as np


def relevance(target, labels, missing="query_labelled"):
    """Share of matched attributes of one image."""
    entries = [m for m in range(len(target)) if missing == "strict_equal" or target[m] >= 0]
    return sum(target[m] == labels[m] for m in entries) / len(entries)


def dcg(relevances, k):
    return sum((2**rel - 1) / math.log2(1 + rank) for rank, rel in enumerate(relevances[:k], start=1))


def evaluate(order, target, labels, *, k, ndcg, mrr, excluded=-1, hit=None, missing="query_labelled"):
    """Metrics of one request from the order of all gallery images (the excluded one not among them)."""
    gallery = [j for j in range(len(labels)) if j != excluded]
    rel = {j: relevance(target, labels[j], missing) for j in gallery}
    hits = [rel[j] == 1 if hit is None else bool(hit[j]) for j in order]
    first = hits.index(True) + 1 if any(hits) else None
    relevant = sum(rel[j] == 1 if hit is None else bool(hit[j]) for j in gallery)
    found, best = [rel[j] for j in order], sorted(rel.values(), reverse=True)
    values = {}
    for cut in k:
        values[f"accuracy@{cut}"] = float(first is not None and first <= cut)
        values[f"chance@{cut}"] = 1 - math.comb(len(gallery) - relevant, cut) / math.comb(len(gallery), cut)
    for cut in ndcg:
        values[f"ndcg@{cut}"] = dcg(found, cut) / dcg(best, cut) if dcg(best, cut) else 0.0
        values[f"ndcg_ones@{cut}"] = dcg(found, cut) / dcg([1.0] * cut, cut)
    for cut in mrr:
        values[f"mrr@{cut}"] = 1 / first if first is not None and first <= cut else 0.0
    return values


def brute_order(gallery, query, excluded=-1):
    """All gallery positions by float64 distance, without the excluded one; for embeddings without ties."""
    distances = np.square(gallery.astype(np.float64) - query).sum(axis=1)
    return [j for j in np.argsort(distances, kind="stable").tolist() if j != excluded]
