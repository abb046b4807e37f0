# SPDX-License-Identifier: MIT
"""What every method must hold, tried out on a small catalogue of garments: ``fm-bench check-method``."""

import inspect
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from fm_bench.bench import Bench
from fm_bench.config import configure
from fm_bench.data.regions import WHOLE
from fm_bench.errors import UserError
from fm_bench.leaderboard.record import Record
from fm_bench.memory import peak_memory
from fm_bench.method_trial import Brief, Trial
from fm_bench.methods import METHODS
from fm_bench.results import load_model, save_model
from fm_bench.third_party import place

DATA, PROFILE, PROTOCOL, METRIC = "garments", "smoke", "manipulate-1", "accuracy@20"
BATCHES = (1, 7)
TOLERANCE = 1e-4
"""Of vectors that should be the same, relative to their largest number: products of other shapes round differently."""
BOUNDS = ("random", "identity")


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Args:
        name: of the check.
        holds: whether it does; None for what is only told.
        detail: a sentence.
        values: numbers behind it, as plain JSON.
    """

    name: str
    holds: bool | None
    detail: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkup:
    """All findings about one method, and where it comes from."""

    method: str
    source: dict[str, str]
    findings: list[Finding]

    @property
    def holds(self) -> bool:
        """Whether nothing failed."""
        return all(finding.holds is not False for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return asdict(self) | {"holds": self.holds}


def check_method(
    spec: str, options: Sequence[str] = (), *, score: bool = True, say: Callable[[str], None] = lambda _: None
) -> Checkup:
    """Tries a method out at profile ``smoke``.

    Args:
        spec: METHOD of ``fm-bench bench``.
        options: further options of a run, e.g. ``["--method.margin", "0.3"]``; the processor computes unless they say
            otherwise.
        score: whether to run the benchmark as well.
        say: hears what is being done.

    Raises:
        UserError: if the method cannot be loaded, or an option means nothing.
    """
    options = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *options]
    config = configure(spec, DATA, PROFILE, "common", 0, options)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(spec, config, config.read(), Path(folder), options)
        checks = dict(_CHECKS) if score else {name: check for name, check in _CHECKS.items() if check is not _score}
        findings: list[Finding] = []
        for name, check in checks.items():
            say(name)
            findings.append(_guarded(name, check, trial))
            if check is _trains and not findings[-1].holds:
                break  # there is nothing to look at
    return Checkup(config.label, config.source, findings)


def _guarded(name: str, check: "Check", trial: "Trial") -> Finding:
    try:
        return replace(check(trial), name=name)
    except UserError as error:
        return Finding(name, False, str(error))
    except Exception as error:  # of somebody else's code: anything
        said = " ".join(str(error).split()).rstrip(".")
        where = place(error, inspect.getfile(METHODS[trial.config.method]))
        return Finding(name, False, f"{type(error).__name__}: {said} ({where}).")


# ---------------------------------------------------------------------- what must hold

Check = Callable[[Trial], Finding]


def _trains(trial: Trial) -> Finding:
    losses = trial.first.watch.losses
    if not trial.first.method.stages:
        return Finding("", None, "There is nothing to train.")
    shown = "; ".join(f"{stage} {', '.join(f'{loss:.4g}' for loss in values)}" for stage, values in losses.items())
    return Finding("", True, f"Losses of the first steps: {shown or 'no stage has gradients'}.", {"losses": losses})


def _gradients(trial: Trial) -> Finding:
    watch = trial.first.watch
    without = [f"{stage}: {name}" for stage, names in watch.asked.items() for name in sorted(names)]
    without = [each for each in without if tuple(each.split(": ", 1)) not in watch.largest]
    wrong = [f"{stage}: {name}" for (stage, name), largest in watch.largest.items() if not math.isfinite(largest)]
    zero = [f"{stage}: {name}" for (stage, name), largest in watch.largest.items() if largest == 0]
    values = {"without": without, "not_finite": wrong, "zero": zero}
    if wrong:
        return Finding("", False, f"Gradients that are no numbers: {_few(wrong)}.", values)
    if without:
        advice = "leave them out of stage_state, or use them (several GPUs would wait for them)"
        return Finding("", False, f"Trained, but without a gradient: {_few(without)}: {advice}.", values)
    if not watch.asked:
        return Finding("", None, "No stage has gradients.", values)
    count = sum(map(len, watch.asked.values()))
    told = f", {len(zero)} of them only zeros so far: {_few(zero)}" if zero else ""
    return Finding("", True, f"All {count} trained parameters receive gradients{told}.", values)


def _shapes(trial: Trial) -> Finding:
    widths = {}
    for brief in (trial.first, trial.larger):
        size = brief.datamodule.image_size
        for count in BATCHES:
            gallery, queries = brief.batches(count)
            before = gallery.image.clone(), queries.image.clone(), queries.indicator.clone()
            stored, asked = brief.embed(gallery), brief.embed(queries)
            for what, vectors in (("embed_gallery", stored), ("embed_query", asked)):
                if vectors.ndim != 2 or len(vectors) != count:
                    return Finding("", False, f"{what} gives {tuple(vectors.shape)} for {count} pictures: give (B, D).")
                if not torch.isfinite(vectors).all():
                    return Finding("", False, f"{what} gives vectors with NaN or infinite numbers at {_pixels(size)}.")
            if any(not torch.equal(*pair) for pair in zip(before, (gallery.image, *queries[:2]), strict=True)):
                return Finding("", False, "The method changes the pictures or requests that it is given: copy them.")
            for width in _searched_widths(brief, stored, count):
                if width != asked.shape[1]:
                    detail = f"Pictures have {width} numbers and requests {asked.shape[1]}: they need one space."
                    return Finding("", False, detail)
            widths[_pixels(size)] = asked.shape[1]
    if problem := _raw_type(trial.first):
        return Finding("", False, problem)
    shown = " and ".join(f"{width} at {size}" for size, width in widths.items())
    return Finding("", True, f"Finite vectors of {shown} pixels, for {BATCHES[0]} and {BATCHES[1]} pictures.", widths)


def _raw_type(brief: Brief) -> str | None:
    """What is wrong with the type of the vectors, before the base class makes them float32."""
    gallery, queries = brief.batches(1)
    method = brief.method.eval()
    seen: list[Tensor] = []

    def spy(embed: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def embedded(*args: Any) -> Tensor:
            seen.append(embed(*args))
            return seen[-1]

        return embedded

    for name in ("embed_gallery", "embed_query"):
        vars(method)[name] = spy(getattr(type(method), name).__get__(method))
    try:
        brief.embed(gallery)
        brief.embed(queries)
    finally:
        del vars(method)["embed_gallery"], vars(method)["embed_query"]
    wrong = {str(vectors.dtype).removeprefix("torch.") for vectors in seen if not vectors.dtype.is_floating_point}
    return f"Vectors are of type {' and '.join(sorted(wrong))}: give floating-point numbers." if wrong else None


def _searched_widths(brief: Brief, stored: Tensor, count: int) -> Iterator[int]:
    """How many numbers the vectors have that requests are compared with."""
    requests = brief.datamodule.val_requests
    nowhere = np.full(count, WHOLE)
    views = brief.method.views(stored.cpu().numpy(), requests.attribute[:count], nowhere)
    if views is None:
        yield stored.shape[1]
        return
    for _, vectors in views:
        yield vectors.shape[1]


def _alone(trial: Trial) -> Finding:
    worst = 0.0
    for batch in trial.first.batches(BATCHES[-1]):
        together = trial.first.embed(batch)
        alone = torch.cat(
            [trial.first.embed(type(batch)(*(part[i : i + 1] for part in batch))) for i in range(BATCHES[-1])]
        )
        worst = max(worst, _distance(together, alone))
    values = {"largest_difference": worst}
    if worst > TOLERANCE:
        cause = "it looks at other pictures of the batch, or draws random numbers, in evaluation mode"
        return Finding(
            "", False, f"A picture's vector depends on the batch (by {worst:.1g} of its size): {cause}.", values
        )
    return Finding("", True, f"A picture has one vector, alone or in a batch (to {worst:.0e}).", values)


def _zero(trial: Trial) -> Finding:
    _, queries = trial.first.batches(BATCHES[-1])
    asked = trial.first.embed(queries)
    plain = trial.first.embed(queries._replace(indicator=torch.zeros_like(queries.indicator)))
    if plain.shape != asked.shape or not torch.isfinite(plain).all():
        return Finding("", False, "A request that changes nothing gives no finite vectors.")
    moved = _distance(plain, asked)
    values = {"moved": moved}
    method = trial.first.method
    if moved == 0 and method.stages and method.validates == "manipulation":
        told = 'give `validates = "query"` to a method that knows no requests'
        return Finding(
            "", False, f"Requests are ignored: with and without one, the vectors are equal ({told}).", values
        )
    told = "other vectors than requests do" if moved else "the same vectors as any other: requests are ignored"
    return Finding("", True, f"A request that changes nothing gives finite vectors, {told}.", values)


def _determinism(trial: Trial) -> Finding:
    one, two = trial.first, trial.again
    for stage, losses in one.watch.losses.items():
        others = two.watch.losses.get(stage, [])
        if losses != others:
            shown = f"{losses} and {others}"
            return Finding("", False, f"With the same seed, the losses of stage {stage} are {shown}.")
    first, second = one.method.state_dict(), two.method.state_dict()
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    if different:
        return Finding("", False, f"With the same seed, training leaves other weights: {_few(different)}.")
    return Finding("", True, "The same seed gives the same losses and the same weights.")


def _checkpoint(trial: Trial) -> Finding:
    path = trial.folder / "model.ckpt"
    save_model(trial.first.method, path)
    try:
        loaded = load_model(path, trial.config.method)
    except Exception as error:
        cause = error.__cause__ or error
        advice = "call save_hyperparameters() in __init__, with plain values, and keep state in parameters or buffers"
        said = " ".join(str(cause).split()).rstrip(".")
        return Finding("", False, f"A saved method cannot be loaded again ({said}): {advice}.")
    again = replace(trial.first, method=loaded)
    worst = max(_distance(trial.first.embed(batch), again.embed(batch)) for batch in trial.first.batches(BATCHES[-1]))
    if worst > TOLERANCE:
        advice = "keep everything that training leaves in parameters or buffers"
        return Finding("", False, f"Loaded again, the method gives other vectors: {advice}.", {"difference": worst})
    return Finding("", True, "Saved and loaded again, the method gives the same vectors.", {"difference": worst})


def _labels(trial: Trial) -> Finding:
    if trial.first.method.needs_labels:
        return Finding("", None, "It is shown the true labels (needs_labels): its row is a bound, not a method.")
    return Finding("", True, "It never sees a true label when it embeds.")


def _memory(trial: Trial) -> Finding:
    parameters = sum(parameter.numel() for parameter in trial.first.method.parameters())
    gallery, _ = trial.first.batches(trial.config.loader.eval_batch_size)
    with peak_memory() as peak:
        trial.first.embed(gallery)
    training = trial.again.memory_mb  # the first pays for what is imported
    values = {"parameters": parameters, "training_mb": training, "embedding_mb": peak.above_mb}
    shown = [f"{parameters:,} parameters"]
    shown += [f"{training:.0f} MiB to train"] if training is not None else []
    shown += [f"{peak.above_mb:.0f} MiB to embed {len(gallery.image)} pictures"] if peak.above_mb is not None else []
    return Finding("", None, ", ".join(shown) + ".", values)


def _score(trial: Trial) -> Finding:
    names = {trial.spec: trial.options} | dict.fromkeys(BOUNDS, trial.options[:4])
    estimates = {spec: _estimate(_run(trial, spec, options)) for spec, options in names.items()}
    estimates = {("method" if spec == trial.spec else spec): found for spec, found in estimates.items()}
    shown = ", ".join(f"{name} {e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]" for name, e in estimates.items())
    worse = estimates["method"]["high"] < estimates.get("random", estimates["method"])["low"]
    if worse:
        detail = f"Worse than random vectors: {METRIC} of {PROTOCOL} is {shown}: is the sign of a distance wrong?"
        return Finding("", False, detail, estimates)
    return Finding("", True, f"{METRIC} of {PROTOCOL} after a few seconds of training: {shown}.", estimates)


def _run(trial: Trial, spec: str, options: Sequence[str]) -> Record:
    asked = ["--evaluation.protocols", f'["{PROTOCOL}"]', "--evaluation.also", "[]"]
    config = configure(spec, DATA, PROFILE, "common", 0, [*options, *asked])
    folder = trial.folder / f"run-{config.label.replace('/', '-')}"
    record = Bench(config, folder, logger="none", console=Console(quiet=True)).run()
    assert record is not None
    return record


def _estimate(record: Record) -> dict[str, float]:
    found = record.metrics[PROTOCOL][METRIC]
    return {name: float(found[name]) for name in ("value", "low", "high")}


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest difference of two sets of vectors, relative to their largest number."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_CHECKS: dict[str, Check] = {
    "trains": _trains,
    "gradients": _gradients,
    "same seed, same result": _determinism,
    "shapes": _shapes,
    "alone or in a batch": _alone,
    "a request for nothing": _zero,
    "saved and loaded": _checkpoint,
    "true labels": _labels,
    "memory": _memory,
    "score": _score,
}
