# SPDX-License-Identifier: MIT
"""What a record must hold, key by key: small checks that say in words what is wrong with a value."""

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any

from fm_bench.recipe import EXACT

SCHEMA = 1
LATER: Mapping[str, Any] = {"search": {}, "tuning": {}}
"""Keys that are newer than the first records, with what a record without them means."""
TOLERANCE = 1e-6  # of low <= value <= high: bootstrap quantiles and means are rounded differently
_MOST = 1e15  # beyond what any run measures, and far below where sums of such numbers overflow

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, starting with a space before a predicate or a dot before a key, or None."""


def wrong_with(value: Any, fields: Mapping[str, Check], schema: int) -> str | None:
    """What is wrong with ``value`` as an object of exactly ``fields`` and of version ``schema``, or None."""
    if not isinstance(value, dict):
        return f"it holds {_kind(value)} instead of an object"
    if value.get("schema") != schema:
        return f"its schema version is {value.get('schema')!r} and this version of fm-bench reads {schema}"
    for key in sorted(fields.keys() | value.keys()):
        if key not in value:
            return f"the key {key!r} is missing"
        if key not in fields:
            return f"the key {key!r} is not known"
        if (wrong := fields[key](value[key])) is not None:
            return f"{key}{wrong}"
    return None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}
    return "null" if value is None else names.get(type(value), "a number" if isinstance(value, float) else "a value")


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f" is {_kind(value)} instead of a text"


def _name(value: Any) -> str | None:
    return None if isinstance(value, str) and value else f" is {value!r} instead of a text that is not empty"


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f" is {_kind(value)} instead of a number"
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        finite = False
    return None if finite else f" is {value} instead of a finite number"


def _measured(value: Any) -> str | None:
    return _number(value) or (None if abs(value) <= _MOST else f" is {value:.3g}, which is beyond what runs measure")


def _not_negative(value: Any) -> str | None:
    return _measured(value) or (None if value >= 0 else f" is {value}, which is below 0")


def _optional(value: Any) -> str | None:
    return None if value is None else _not_negative(value)


def _share(value: Any) -> str | None:
    return _number(value) or (None if 0 <= value <= 1 else f" is {value}, which is not between 0 and 1")


def _count(least: int) -> Check:
    def wrong(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f" is {_kind(value)} instead of a whole number"
        if (found := _measured(value)) is not None:
            return found
        return None if value >= least else f" is {value}, which is below {least}"

    return wrong


def _one_of(*allowed: Any) -> Check:
    return lambda value: (
        None if value in allowed else f" is {value!r} instead of one of {', '.join(map(repr, allowed))}"
    )


def _object(value: Any) -> str | None:
    return None if isinstance(value, dict) else f" is {_kind(value)} instead of an object"


def _plain(value: Any) -> str | None:
    """Anything that JSON can hold."""
    if isinstance(value, dict):
        named = [f".{key} is not named by a text" for key in value if not isinstance(key, str)]
        return named[0] if named else _each(_plain)(value)
    if isinstance(value, list | tuple):
        return _list(_plain)(list(value))
    if isinstance(value, float):
        return _number(value)
    return None if value is None or isinstance(value, str | int) else f" is a {type(value).__name__}, which is not JSON"


def _plain_object(value: Any) -> str | None:
    return _object(value) or _plain(value)


def _each(inner: Check, *, keys: tuple[str, ...] = ()) -> Check:
    """An object whose every value holds ``inner``, with at least ``keys``."""

    def wrong(value: Any) -> str | None:
        if (found := _object(value)) is not None:
            return found
        for key in keys:
            if key not in value:
                return f".{key} is missing"
        return next((f".{key}{found}" for key, item in value.items() if (found := inner(item)) is not None), None)

    return wrong


def _list(inner: Check) -> Check:
    def wrong(value: Any) -> str | None:
        if not isinstance(value, list):
            return f" is {_kind(value)} instead of a list"
        return next((f"[{i}]{found}" for i, item in enumerate(value) if (found := inner(item)) is not None), None)

    return wrong


def _estimate(value: Any) -> str | None:
    if (found := _each(_measured, keys=("value",))(value)) is not None:
        return found
    keys = set(value)
    if keys not in ({"value"}, {"value", "low", "high"}):
        return f" has the keys {sorted(keys)} instead of value, low and high"
    if len(keys) == 3 and not value["low"] - TOLERANCE <= value["value"] <= value["high"] + TOLERANCE:
        return f" has its value {value['value']} outside of its interval {value['low']} to {value['high']}"
    return None


def _curve(value: Any) -> str | None:
    if (found := _each(_list(_not_negative), keys=("k", "accuracy"))(value)) is not None:
        return found
    k, accuracy = value["k"], value["accuracy"]
    if len(k) != len(accuracy):
        return f" has {len(k)} values of k and {len(accuracy)} of accuracy"
    return None if k == sorted(set(k)) and (not k or k[0] >= 1) else ".k does not grow from 1 on"


def _config(value: Any) -> str | None:
    """Plain settings, of which tables and pages look into some groups."""
    if (wrong := _plain_object(value)) is not None:
        return wrong
    for group in ("evaluation", "hyper", "loader", "reader", "source", "stages"):
        if (wrong := _object(value.get(group, {}))) is not None:
            return f".{group}{wrong}"
    wrong = None if value.get("fold") is None else _count(0)(value["fold"])
    if wrong is not None:
        return f".fold{wrong}"
    asked = value.get("evaluation", {})
    names = ((name, _list(_name)(asked.get(name, []))) for name in ("protocols", "also"))
    return next((f".evaluation.{name}{wrong}" for name, wrong in names if wrong is not None), None)


def _search(value: Any) -> str | None:
    """How the gallery was searched: nothing in older records, else at least by which index."""
    if (wrong := _plain_object(value)) is not None or not value:
        return wrong
    if "index" not in value:
        return ".index is missing"
    if (wrong := _name(value["index"])) is not None:
        return f".index{wrong}"
    for name in ("embeddings_mb", "peak_memory_mb"):
        if name in value and (wrong := _not_negative(value[name])) is not None:
            return f".{name}{wrong}"
    if value["index"] != EXACT and "protocols" not in value:
        return f".protocols is missing, which tells what the index {value['index']!r} costs and misses"
    wrong = _each(_each(_not_negative))(value.get("protocols", {}))
    return None if wrong is None else f".protocols{wrong}"


def _tuning(value: Any) -> str | None:
    """Nothing, or the ledger of a search, of which tables show how much it spent: trials, and images of each."""
    if (wrong := _plain_object(value)) is not None or not value:
        return wrong
    checks = {"trials": _list(_object), "images": _count(1)}
    found = ((name, " is missing" if name not in value else check(value[name])) for name, check in checks.items())
    return next((f".{name}{wrong}" for name, wrong in found if wrong is not None), None)


def _time(value: Any) -> str | None:
    try:
        datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return f" is {value!r} instead of an ISO 8601 time"
    return None


_METRICS = _each(_each(_estimate))
FIELDS: Mapping[str, Check] = {
    "schema": _one_of(SCHEMA),
    "fingerprint": _name,
    "method": _name,
    "variant": _text,
    "label": _name,
    "data": _name,
    "profile": _name,
    "mode": _one_of("common", "paper"),
    "seed": _count(0),
    "config": _config,
    "data_digest": _name,
    "protocols": _each(_name),
    "request_digests": _each(_name),
    "metrics": _METRICS,
    "by_attribute": _each(_METRICS),
    "curves": _each(_curve),
    "requests": _each(_count(1)),
    "tied": _each(_share),
    "gallery": _count(1),
    "dim": _count(1),
    "parameters": _count(0),
    "search": _search,
    "tuning": _tuning,
    "seconds": _each(_not_negative),
    "query_ms": _optional,
    "peak_memory_mb": _optional,
    "hardware": _plain_object,
    "versions": _each(_text),
    "code": _each(_text, keys=("version", "digest")),
    "command": _text,
    "notes": _list(_text),
    "finished": _time,
}
