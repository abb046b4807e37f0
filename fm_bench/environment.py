# SPDX-License-Identifier: MIT
"""What a run ran on: processor, packages, and which code."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import fm_bench

PACKAGES = (
    "torch",
    "lightning",
    "torchvision",
    "torchmetrics",
    "timm",
    "albumentations",
    *("numpy", "scipy", "scikit-learn", "scikit-image", "opencv-python-headless", "pillow"),
    *("faiss-cpu", "faiss-gpu"),
)
# Between a picture and its vector.
_BEFORE_VECTORS = ("torch", "torchvision", "timm", "numpy", "albumentations", "opencv-python-headless", "pillow")
# Pages, command lines, downloads and what looks at data without training on it may change without a number moving.
_NOT_NUMERIC = (
    *("leaderboard", "commands", "campaign.py", "tuning.py", "cli.py", "environment.py", "errors.py"),
    *("loggers.py", "progress.py", "method_check.py", "method_trial.py"),
    *("data/downloads.py", "data/fetching.py", "data/archives.py"),
    *("data/validate.py", "data/checks.py", "data/duplicates.py", "data/preview.py"),
)
# Nothing of this can change an embedding, given the trained weights, the pictures and which of them are asked for.
_APART_FROM_VECTORS = (
    *("evaluation", "retrieval", "outcomes", "results.py", "questions.py"),  # what comes after
    *("bench.py", "run_folder.py", "finished.py", "training.py", "reuse.py"),  # what runs it
    *("processes.py", "launch.py", "memory.py"),
    *("explain.py", "activation_sheet.py", "embedding_sheet.py", "prototype_sheet.py"),  # what draws it
)


def code_digest() -> str:
    """Digest of every source file that can change a number: a result is never continued or reused with other code."""
    return _digest_without(_NOT_NUMERIC)


def code_to_vectors() -> str:
    """Digest of the source files that can change an embedding of given weights: not those that search and judge."""
    return _digest_without(_NOT_NUMERIC + _APART_FROM_VECTORS)


@functools.cache
def _digest_without(apart: tuple[str, ...]) -> str:
    root = Path(fm_bench.__file__).parent
    hasher = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not any(relative.is_relative_to(part) for part in apart):
            hasher.update(f"{relative.as_posix()}\0".encode() + path.read_bytes())
    return hasher.hexdigest()


def code_version() -> dict[str, str]:
    """Package version, digest of the sources, and the git revision where there is a checkout."""
    return {"version": fm_bench.__version__, "digest": code_digest(), "git": _git_revision()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | _installed(PACKAGES)


def made_with(accelerator: Any = None) -> dict[str, str]:
    """Versions of the packages that embeddings come from, and the processor or GPU that computes them.

    Args:
        accelerator: as ``Trainer`` understands it; None leaves it to Lightning.
    """
    on_gpu = torch.cuda.is_available() and wants_gpu(accelerator)
    return _installed(_BEFORE_VECTORS) | {"processor": torch.cuda.get_device_name() if on_gpu else _processor()}


def wants_gpu(accelerator: Any) -> bool:
    """Whether work goes to a GPU where there is one: ``accelerator`` as ``Trainer`` understands it, or None."""
    return accelerator in (None, "auto", "gpu", "cuda")


def computes_in_bfloat16(gpu: bool = True) -> bool:
    """Whether the GPU, or else the processor, multiplies in bfloat16, and does not only emulate it.

    Args:
        gpu: whether a GPU may be used where there is one.
    """
    if gpu and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def hardware() -> dict[str, str | int | list[str]]:
    """Processor, usable cores, memory in GiB, and GPUs."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {"cpu": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": memory, "gpus": gpus}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_revision() -> str:
    """``abc1234`` or ``abc1234-dirty``; empty outside of a checkout."""
    root = Path(fm_bench.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
