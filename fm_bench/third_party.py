# SPDX-License-Identifier: MIT
"""Methods that are not part of the suite: found by a Python path or as an entry point, and known by name from then on.

``join`` puts such a method beside the suite's own, in ``METHODS`` and among the recipes, for the process it is called
in; a run's configuration holds what ``rejoin`` needs to do the same in another one.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from fm_bench import recipe
from fm_bench.errors import UserError, unknown

if TYPE_CHECKING:
    from fm_bench.methods import Method

GROUP = "fm_bench.methods"
"""The group of entry points in which packages name their methods."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
T = TypeVar("T")
Source = dict[str, str]
"""Where a method comes from: ``reference`` to load it by, ``package``, ``version``, and ``digest`` of its source."""


@dataclass(frozen=True)
class Loaded:
    """A method that is not the suite's own."""

    method: "type[Method]"
    source: Source
    recipe: dict[str, Any]


def join(spec: str) -> tuple[str, Source]:
    """Makes what METHOD means known by a name.

    Args:
        spec: ``name``, ``package.module:Class`` or ``path/to/file.py:Class``, each with ``/variant`` where wanted.

    Returns:
        ``name`` or ``name/variant``, and where the method comes from, which is nothing for the suite's own.

    Raises:
        UserError: if there is no such name, module, file or class, if importing it fails, if the class is no method,
            or if its name is taken.
    """
    where, colon, rest = spec.rpartition(":")
    name, slash, variant = rest.partition("/")
    own = recipe.names("methods")
    if not colon and name in own and not recipe.is_joined(name):
        return spec, {}
    if colon:
        reference = f"{Path(where).resolve() if where.endswith('.py') else where}:{name}"
        name = next((each for each, point in registered().items() if _reference(point) == reference), name.lower())
    else:
        points = registered()
        if name not in points:
            raise unknown("method", name, {*own, *points})
        reference = _reference(points[name])
    loaded = load(reference)
    _make_known(name, loaded)
    return f"{name}{slash}{variant}", loaded.source


def rejoin(name: str, source: Mapping[str, str]) -> None:
    """Makes the method of an earlier run known again. Does nothing for the suite's own, which have no ``source``.

    Raises:
        UserError: as ``join``, or if its source has changed.
    """
    if not source:
        return
    loaded = load(source["reference"])
    if loaded.source["digest"] != source["digest"]:
        raise UserError(
            f"the source of {source['reference']} has changed since this run: restore it or run the benchmark again."
        )
    _make_known(name, loaded)


def join_registered() -> list[str]:
    """Joins every registered method; returns a sentence for each that cannot be."""
    problems: list[str] = []
    for name in registered(problems):
        try:
            join(name)
        except UserError as error:
            problems.append(f"{name}: {error}")
    return problems


def registered(problems: list[str] | None = None) -> dict[str, EntryPoint]:
    """The entry points of installed packages, by name. A name that the suite or another package has is left out.

    Args:
        problems: receives a sentence for each one left out.
    """
    points: dict[str, EntryPoint] = {}
    own = {name for name in recipe.names("methods") if not recipe.is_joined(name)}
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        other = points.get(point.name)
        if other is not None and other.value == point.value:  # one package, found twice on the path
            continue
        if other is None and point.name not in own:
            points[point.name] = point
        elif problems is not None:
            taken = "fm_bench has a method of that name" if other is None else f"{other.value} has it, too"
            problems.append(f"{point.name} of {point.value}: {taken}, so ask for it by METHOD={_reference(point)}")
    return points


def source_digest(method: type) -> str:
    """Digest of the source files of a class that is not the suite's own; empty for those that are, or have none."""
    if method.__module__.partition(".")[0] == "fm_bench":
        return ""
    try:
        return _source_digest(method)
    except (OSError, TypeError):  # typed in, not written to a file
        return ""


def notes(source: Mapping[str, str]) -> list[str]:
    """What readers of a row must know of where its method comes from; nothing for the suite's own."""
    if not source:
        return []
    return [
        f"not part of fm_bench: {source['package']} {source['version']}".strip() + f", source {source['digest'][:12]}"
    ]


@cache
def load(reference: str) -> Loaded:
    """A method by ``package.module:Class`` or ``/path/to/file.py:Class``. Raises UserError as ``join``."""
    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        module = _import_file(Path(where))
        package, version = Path(where).name, ""
    else:
        module = _import_module(where)
        package, version = _distribution(where)
    method = _method(module, name, where)
    try:
        files = _source_digest(method)
    except (OSError, TypeError) as error:
        raise UserError(f"{reference} has no source file, so that records could not say what ran.") from error
    source = {"reference": reference, "package": package, "version": version, "digest": files}
    return Loaded(method, source, _recipe(method, f"{package} {version}".strip()))


def _reference(point: EntryPoint) -> str:
    return f"{point.module}:{point.attr}"


def _make_known(name: str, loaded: Loaded) -> None:
    from fm_bench.methods import METHODS

    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a method: use lower-case letters, digits, dots, dashes and underscores.")
    if METHODS.get(name, loaded.method) is not loaded.method:
        whose = "another method of this command" if recipe.is_joined(name) else "a method of fm_bench"
        raise UserError(
            f"{loaded.source['reference']} would be called {name!r}, as {whose} is: rename its class, or register it "
            f"under another name in the group {GROUP}."
        )
    METHODS[name] = loaded.method
    recipe.join(name, loaded.recipe)


# ---------------------------------------------------------------------- importing


def _import_file(path: Path) -> ModuleType:
    """The module in a file, under a name of its own; modules beside it can be imported by it."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the path of a Python file, then a colon and a class.")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    loader = spec.loader
    try:
        _imported(lambda: loader.exec_module(module), str(path))
        _check_neighbours(path)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_neighbours(path: Path) -> None:
    """Raises UserError if a name that a file imports lies beside it, and yet means another module."""
    for neighbour in _followed(path) - {path}:
        whole = neighbour.name == "__init__.py"
        imported = sys.modules.get(neighbour.parent.name if whole else neighbour.stem)
        found = getattr(imported, "__file__", None)
        beside = (neighbour.parent if whole else neighbour).parent == path.parent
        if imported is not None and beside and found is not None and Path(found).resolve() != neighbour.resolve():
            raise UserError(
                f"{path} imports {imported.__name__}, which is {found} and not what lies beside it: "
                "give that another name."
            )


def _import_module(name: str) -> ModuleType:
    try:
        return _imported(lambda: importlib.import_module(name), name)
    except UserError as error:
        missing = getattr(error.__cause__, "name", None) if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise UserError(
                f"there is no module {missing!r}: install its package, or name its folder in PYTHONPATH, "
                "or give path/to/file.py:Class."
            ) from error
        raise


def _imported(run: Callable[[], T], where: str) -> T:
    """What ``run`` returns; whatever goes wrong in somebody's file is told in one sentence."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        said = traceback.format_exception_only(error)[-1].strip().rstrip(".")
        raise UserError(f"{where} cannot be imported: {said} ({place(error)}).") from error


def place(error: BaseException, file: str = "") -> str:
    """``file.py, line 3``: where an error arose.

    Args:
        error: with its traceback.
        file: whose lines are preferred; else it is the innermost line that is not Python's own machinery.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    frames = [frame for frame in frames if frame.filename == file] or frames
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "nowhere"


def _method(module: ModuleType, name: str, where: str) -> "type[Method]":
    """The class, if it can be run at all."""
    from fm_bench.methods import Method

    found = getattr(module, name, None)
    if found is None:
        methods = [
            each
            for each, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        ]
        if not methods:
            raise UserError(f"{where} has no class {name!r}, and no method at all: derive one from fm_bench's Method.")
        raise unknown(f"class of {Path(where).name}", name, methods)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(f"{where}:{name} is not a method: derive the class from fm_bench.methods.Method.")
    if abstract := sorted(getattr(found, "__abstractmethods__", ())):
        raise UserError(f"{where}:{name} lacks {' and '.join(abstract)}: every method embeds pictures and requests.")
    needed = [f"{stage.name}_{end}" for stage in found.stages if stage.trained for end in ("step", "optimizer")]
    if lacking := [each for each in needed if not hasattr(found, each)]:
        raise UserError(f"{where}:{name} lacks {' and '.join(lacking)}, which its stages ask for.")
    if "attributes" not in inspect.signature(found.__init__).parameters:
        raise UserError(f"{where}:{name} cannot be told the attributes: take `attributes` first in its __init__.")
    return found


def _distribution(module: str) -> tuple[str, str]:
    """Name and version of the installed package that a module belongs to; without one, the top package's name."""
    top = module.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    # an editable installation lists no modules, but its entry points
    names += [
        point.dist.name
        for point in importlib.metadata.entry_points(group=GROUP)
        if point.module.partition(".")[0] == top and point.dist is not None
    ]
    return (names[0], importlib.metadata.version(names[0])) if names else (top, "")


# ---------------------------------------------------------------------- recipe and source


def _recipe(method: "type[Method]", package: str) -> dict[str, Any]:
    """The YAML file beside the module, named like the class in lower case; what it leaves out is filled in.

    Without one, the description is the first line of the docstring, and the stages that look at pictures share the
    training budget evenly.
    """
    from fm_bench.data.batches import WITHOUT_PICTURES

    path = Path(inspect.getfile(method)).with_name(f"{method.__name__.lower()}.yaml")
    try:
        content = dict(recipe.checked("methods", path)) if path.exists() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    line = (vars(method).get("__doc__") or method.__name__).strip().splitlines()[0].rstrip(".")
    content["description"] = f"{content.get('description', line)} ({package})"
    if "stages" not in content:
        looking = [stage.name for stage in method.stages if stage.trained and stage.batches not in WITHOUT_PICTURES]
        content["stages"] = {name: {"share": 1 / len(looking)} for name in looking}
    return content


@cache
def _source_digest(method: type) -> str:
    """Digest of every file that the class, and the methods it is derived from, are written in.

    Of a package that is each of its Python files, of a single file also the ones beside it that it imports.
    """
    hasher = hashlib.sha256()
    for path, name in sorted(set(_sources(method)), key=lambda pair: pair[::-1]):
        hasher.update(f"{name}\0".encode() + path.read_bytes())
    return hasher.hexdigest()


def _sources(method: type) -> Iterator[tuple[Path, str]]:
    from fm_bench.methods import Method

    for cls in method.__mro__:
        if not issubclass(cls, Method) or cls.__module__.partition(".")[0] == "fm_bench":
            continue
        path = Path(inspect.getfile(cls)).resolve()
        root = path.parent
        if not (root / "__init__.py").exists():
            yield from ((file, file.relative_to(root).as_posix()) for file in _followed(path))
            continue
        while (root.parent / "__init__.py").exists():
            root = root.parent
        yield from ((file, file.relative_to(root.parent).as_posix()) for file in root.rglob("*.py"))


def _followed(path: Path) -> set[Path]:
    """A file, the ones beside it that it imports, and so on; of packages beside it, every file."""
    root, found, left = path.parent, {path}, [path]
    while left:
        for name in _imports(left.pop()):
            single, package = root / f"{name}.py", root / name
            files = {single} if single.is_file() else set(package.rglob("*.py")) if package.is_dir() else set()
            left += files - found
            found |= files
    return found


def _imports(path: Path) -> set[str]:
    """The top names that a file imports; none if it is no Python, which whoever imports it will hear of."""
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
