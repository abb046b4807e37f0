# SPDX-License-Identifier: MIT
"""Made-up records for the tests of the leaderboard; none of these numbers was measured."""

from pathlib import Path
from typing import Any

import numpy as np

from fm_bench.files import digest
from fm_bench.leaderboard.compare import Run, load_run
from fm_bench.leaderboard.record import Record, save

KS = (1, 5, 10, 20, 30, 50)
ATTRIBUTES = ("category", "colour", "pattern", "sleeve length", "neckline")
SKILL = {
    "amnet": 0.68,
    "amnet/no-ranking": 0.63,
    "amnet/no-memory": 0.60,
    "attribute-based": 0.57,
    "identity": 0.17,
    "random": 0.07,
    "oracle": 0.99,
}


def estimate(value: float, requests: int = 1500) -> dict[str, float]:
    """A share with its interval; what is above 1 is no share but milliseconds."""
    if value > 1:
        return {"value": value, "low": 0.97 * value, "high": 1.04 * value}
    half = 1.96 * (max(value * (1 - value), 1e-4) / requests) ** 0.5
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def metrics_of(skill: float) -> dict[str, dict[str, float]]:
    result = {f"accuracy@{k}": estimate(min(1.0, skill * (k / 20) ** (0.45 * (1 - skill)))) for k in KS}
    result |= {f"ndcg@{k}": estimate(skill * 0.9) for k in (10, 20)}
    result |= {f"ndcg_ones@{k}": estimate(skill * 0.7) for k in (10, 20)}
    result |= {"mrr@1000": estimate(skill * 0.5)}
    return result | {f"chance@{k}": {"value": 1 - 0.9965**k} for k in KS}


def make(name: str = "amnet", seed: int = 0, skill: float | None = None, **changes: Any) -> Record:
    """A record of ``name`` with made-up metrics; any field may be replaced."""
    method, _, variant = name.partition("/")
    skill = SKILL.get(name, 0.5) if skill is None else skill
    skill = min(1.0, skill + (0.004 * (seed - 1) if name not in ("oracle", "random") else 0.0))
    protocols = changes.pop("protocols", {"manipulate-1": "aa" * 32, "manipulate-2": "bb" * 32, "search": "cc" * 32})
    parts = {p: metrics_of(skill * (0.85 if p == "manipulate-2" else 1.0)) for p in protocols}
    attributes = {a: {"accuracy@20": estimate(skill * (1 - 0.1 * i))} for i, a in enumerate(ATTRIBUTES)}
    fields: dict[str, Any] = {
        "method": method,
        "variant": variant,
        "label": name,
        "data": "garments",
        "profile": "quick",
        "mode": "common",
        "seed": seed,
        "config": {"seed": seed, "model": {"lr": 0.001, "dim": 256, "memory": variant != "no-memory"}},
        "data_digest": "dd" * 32,
        "protocols": protocols,
        "request_digests": {p: digest(p) for p in protocols},
        "metrics": parts,
        "by_attribute": dict.fromkeys(protocols, attributes),
        "curves": {p: {"k": list(KS), "accuracy": [parts[p][f"accuracy@{k}"]["value"] for k in KS]} for p in protocols},
        "requests": dict.fromkeys(protocols, 1500),
        "tied": dict.fromkeys(protocols, 0.0),
        "gallery": 5000,
        "dim": 256,
        "parameters": 2_812_345,
        "seconds": {"prepare": 12.5, "train": 251.0 + seed, "embed_gallery": 9.1, "search": 0.4, "total": 280.0},
        "query_ms": 1.84,
        "peak_memory_mb": 1630.0,
        "hardware": {"cpu": "Example CPU", "cores": 2, "memory_gib": 15, "gpus": []},
        "versions": {"torch": "2.11.0", "lightning": "2.6.6"},
        "code": {"version": "0.1.0", "digest": "ee" * 32, "git": "0123abc"},
        "command": f"fm-bench bench {name} --data garments --profile quick --seed {seed}",
        "notes": [],
        "finished": f"2026-01-0{seed + 1}T12:00:00+00:00",
    }
    fields |= changes
    fields.setdefault("fingerprint", digest({key: fields[key] for key in sorted(fields)}))
    return Record.from_json({"schema": 1, **fields})


def everything(seeds: tuple[int, ...] = (0,)) -> list[Record]:
    """One row of every method of the first family."""
    return [make(name, seed) for name in SKILL for seed in seeds]


def outcomes(rate: float, requests: int = 1500, seed: int = 0) -> np.ndarray:
    """Made-up per-request hits: 1.0 for a share ``rate`` of them; with the same seed, a higher rate hits a superset."""
    return (np.random.default_rng(seed).random(requests) < rate).astype(np.float32)


def run(folder: Path, name: str, results: dict[str, np.ndarray], seed: int = 0, **changes: Any) -> Run:
    """A run in ``folder`` whose metrics are the means of its per-request ``results``, named ``protocol/metric``."""
    protocols = {key.partition("/")[0]: key.partition("/")[0] * 4 for key in results}
    metrics: dict[str, Any] = {protocol: {} for protocol in protocols}
    for key, values in results.items():
        protocol, _, metric = key.partition("/")
        metrics[protocol][metric] = estimate(float(np.nanmean(values)), len(values))
    fields: dict[str, Any] = {
        "protocols": protocols,
        "metrics": metrics,
        "by_attribute": {},
        "curves": {},
        "requests": {key.partition("/")[0]: len(values) for key, values in results.items()},
    }
    folder = folder / f"{name.replace('/', '-')}-{seed}"
    save(make(name, seed, **(fields | changes)), folder / "record.json")
    np.savez(folder / "requests.npz", **results)
    return load_run(folder)
