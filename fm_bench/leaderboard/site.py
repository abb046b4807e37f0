# SPDX-License-Identifier: MIT
"""The leaderboard as one HTML file that needs nothing else: it opens from disk, without a network.

The same records give the same bytes. Everything that comes from a record is escaped, and the page's own policy lets
nothing run or load but the one script that is in it.
"""

import base64
import dataclasses
import functools
import hashlib
import itertools
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from fm_bench.files import write_text
from fm_bench.leaderboard import reproduction
from fm_bench.leaderboard.claims import Verdict, judge
from fm_bench.leaderboard.compare import Run, load_runs
from fm_bench.leaderboard.headlines import counted, summary
from fm_bench.leaderboard.links import METHODS, method_page
from fm_bench.leaderboard.record import Record, load_all
from fm_bench.leaderboard.rows import Key, Table, tables
from fm_bench.leaderboard.shown import number, unit, words, work
from fm_bench.leaderboard.table import MISSING, ends
from fm_bench.leaderboard.views import Bar, View, headings, timed, view

PAGE = "leaderboard.html"
MODES = {
    "common": "common mode: same backbone, split, requests and training budget for every method",
    "paper": "paper mode: every method with its paper's own backbone, losses and protocol",
}


def build(folder: Path, out: Path) -> Path:
    """Builds the page ``out`` from every record in ``folder``, with verdicts where per-request results are there.

    Files that could not be taken are named on the page and logged as warnings.

    Returns:
        ``out``.

    Raises:
        UserError: if ``folder`` is not a folder or ``out`` cannot be written.
    """
    html, problems = _page_of(folder, Path(out))
    for problem in problems:
        logging.getLogger(__name__).warning("%s", problem)
    write_text(Path(out), html)
    return Path(out)


def refresh_page(runs: Path) -> Path:
    """Builds ``leaderboard.html`` in the folder of the runs it shows, and returns its path; raises as ``build``."""
    return build(runs, Path(runs) / PAGE)


def is_stale(folder: Path, out: Path) -> bool:
    """Whether the page ``out`` is missing or is not what ``build`` would write now. Raises UserError as ``build``."""
    html, _ = _page_of(folder, Path(out))
    return not Path(out).is_file() or Path(out).read_text(encoding="utf-8", errors="replace") != html


def _page_of(folder: Path, out: Path) -> tuple[str, list[str]]:
    records, problems = load_all(folder)
    runs, _ = load_runs(folder)  # its problems are among those of load_all
    pages = {f"{METHODS}/{path.name}" for path in (out.parent / METHODS).glob("*.html")}
    return render(records, problems, judge(runs), runs, pages), problems


def build_page(
    records: Iterable[Record], out: Path, *, problems: Sequence[str] = (), verdicts: Sequence[Verdict] = ()
) -> None:
    """Writes the page.

    Args:
        records: everything to show, in any order.
        out: the HTML file.
        problems: sentences about files that could not be taken, shown at the top.
        verdicts: what the runs say about the papers' claims.

    Raises:
        UserError: if ``out`` cannot be written.
    """
    write_text(Path(out), render(list(records), problems, verdicts))


def render(
    records: Sequence[Record],
    problems: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    runs: Sequence[Run] = (),
    pages: Collection[str] = (),
) -> str:
    """The page as text.

    Args:
        records: as for ``build_page``, like ``problems`` and ``verdicts``.
        problems: see there.
        verdicts: see there.
        runs: runs with results for every request, from which the ranks follow.
        pages: addresses of the method pages that are there; rows link to theirs.
    """
    environment = _environment()
    script = _source(environment, "page.js")
    every = tables(records)
    places = list(dict.fromkeys(table.key[:3] for table in every))
    called = _called(every)
    sections = _sections(every, called, verdicts, {run.record.fingerprint: run for run in runs})
    html = environment.get_template("page.html").render(
        style=Markup(_source(environment, "page.css")),  # noqa: S704 our own file
        script=Markup(script),  # noqa: S704 our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=sections,
        headlines=summary(verdicts, places) if verdicts else [],
        papers=[paper for paper in reproduction.papers(every) if paper.run],
        ours=reproduction.shown,
        called=called,
        records=len({record.fingerprint for record in records}),
        methods=len({record.method for record in records}),
        rows=len({record.name for record in records}),
        problems=problems,
        missing=MISSING,
        page_of=lambda label: address if (address := method_page(label)) in pages else "",
        words=words,
        work=work,
        ends=ends,
        number=number,
        unit=unit,
    )
    return html.encode("utf-8", "backslashreplace").decode()  # JSON can hold halves of characters


@functools.cache
def _environment() -> jinja2.Environment:
    """Where templates come from; it keeps them compiled, which takes longer than to fill one in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fm_bench.leaderboard"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A name of a method or metric that a narrow column may break after ``/`` and ``_``."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped before


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


# What the template shows ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Section:
    """All tables of one data set, profile and mode, and the claims judged there."""

    id: str
    data: str
    profile: str
    mode: str
    about_mode: str
    views: tuple[View, ...]
    attributes: frozenset[str]
    papers: tuple["Paper", ...]
    untested: tuple["Judged", ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict and its interval on an axis that all verdicts of the section and of its unit share."""

    verdict: Verdict
    bar: Bar | None


@dataclasses.dataclass(frozen=True)
class Paper:
    """The verdicts on the claims of one paper, and how many there are of each."""

    source: str
    tested: tuple[Judged, ...]

    @property
    def counts(self) -> str:
        """``9 preserved, 2 undecided``."""
        return counted([judged.verdict.outcome for judged in self.tested])


def _places(every: Sequence[Table]) -> Iterator[tuple[tuple[str, str, str], list[Table]]]:
    """The tables of one data set, profile and mode at a time."""
    for place, members in itertools.groupby(every, key=lambda table: table.key[:3]):
        yield place, list(members)


def _called(every: Sequence[Table]) -> dict[Key, str]:
    """What each table is called among those of its place."""
    return {key: heading for _, group in _places(every) for key, heading in headings(group).items()}


def _sections(
    every: Sequence[Table], called: Mapping[Key, str], verdicts: Sequence[Verdict], runs: Mapping[str, Run]
) -> list[Section]:
    result: list[Section] = []
    numbers = itertools.count(1)
    for place, group in _places(every):
        times = timed(group)
        views = tuple(view(table, f"t{next(numbers)}", called[table.key], runs, times) for table in group)
        judged = [verdict for verdict in verdicts if (verdict.data, verdict.profile, verdict.mode) == place]
        data, profile, mode = place
        name = f"s{len(result) + 1}"
        attributes = frozenset(attribute for table in group for attribute in table.attributes)
        result.append(Section(name, data, profile, mode, MODES[mode], views, attributes, *_papers(_on_axis(judged))))
    return result


def _papers(verdicts: Sequence[Judged]) -> tuple[tuple[Paper, ...], tuple[Judged, ...]]:
    """Verdicts by paper, in the order of their claims, and what was not tested."""
    by_paper: dict[str, list[Judged]] = {}
    for judged in verdicts:
        if judged.bar is not None:
            by_paper.setdefault(judged.verdict.claim.source, []).append(judged)
    papers = tuple(Paper(source, tuple(tested)) for source, tested in by_paper.items())
    return papers, tuple(judged for judged in verdicts if judged.bar is None)


def _on_axis(verdicts: Sequence[Verdict]) -> tuple[Judged, ...]:
    """Every interval on one axis for each unit, symmetric around 0."""
    reach: dict[str, float] = {}
    for verdict in verdicts:
        if (d := verdict.difference) is not None:
            kind = unit(verdict.claim.metric)
            reach[kind] = max(reach.get(kind, 0.0), 1.05 * max(abs(d.low), abs(d.high)))

    def bar(verdict: Verdict) -> Bar | None:
        if (d := verdict.difference) is None:
            return None
        low, value, high = (
            round(50 + 50 * end / (reach[unit(verdict.claim.metric)] or 1.0), 2) for end in (d.low, d.value, d.high)
        )
        return Bar(low, round(high - low, 2), value)

    return tuple(Judged(verdict, bar(verdict)) for verdict in verdicts)
