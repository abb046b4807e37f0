# SPDX-License-Identifier: MIT
"""What stands in Markdown files between markers: results of some protocols, and what became of the papers' claims."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fm_bench import recipe
from fm_bench.errors import UserError
from fm_bench.files import write_text
from fm_bench.leaderboard.claims import Verdict
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.table import escape, line, markdown_table, span

RESULTS = re.compile(r"<!-- results:begin((?: [\w-]+)+) -->\n(.*?)<!-- results:end -->", re.DOTALL)
CLAIMS = re.compile(r"<!-- claims:begin() -->\n(.*?)<!-- claims:end -->", re.DOTALL)
_MARK = re.compile(r"<!-- (?:results|claims):(?:begin|end)")
MAIN = "without-variants"


def update_readme(
    path: Path, records: Iterable[Record], verdicts: Sequence[Verdict] = (), *, check: bool = False
) -> bool:
    """Puts results and verdicts between the markers of the file at ``path``.

    Args:
        path: a Markdown file with ``<!-- results:begin PROTOCOL … -->`` and ``<!-- results:end -->``, which shows these
            protocols in this order, and methods alone if ``without-variants`` is among them; and with ``<!--
            claims:begin -->`` and ``<!-- claims:end -->``, if claims belong there, too. Markers have lines of their
            own.
        records: what to show.
        verdicts: on the papers' claims.
        check: only compare, and leave the file as it is.

    Returns:
        True if what stood there was not up to date.

    Raises:
        UserError: if the file or its markers are missing, or name a protocol that does not exist.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}): check the path.") from error
    if RESULTS.search(text) is None:
        raise UserError(
            f"{path} has no lines <!-- results:begin manipulate-1 --> and <!-- results:end -->: put them where the "
            "results of that protocol belong."
        )
    if stray := _MARK.search(CLAIMS.sub("", RESULTS.sub("", text))):
        raise UserError(f"{path} has a line {stray[0]} … --> without its counterpart: put both, each on its own line.")
    kept = list(records)
    new = RESULTS.sub(lambda found: _between(found, _results(kept, found[1].split())), text)
    new = CLAIMS.sub(lambda found: _between(found, claims_table(verdicts)), new)
    new = new.encode("utf-8", "backslashreplace").decode()  # JSON can hold halves of characters
    if new != text and not check:
        write_text(Path(path), new)
    return new != text


def _results(records: Sequence[Record], words: Sequence[str]) -> str:
    protocols = [word for word in words if word != MAIN]
    for protocol in protocols:
        recipe.load("protocols", protocol)
    shown = [record for record in records if MAIN not in words or not record.variant]
    return "\n\n".join(filter(None, (markdown_table(shown, protocol) for protocol in protocols)))


def _between(found: re.Match[str], body: str) -> str:
    start, end = (at - found.start() for at in found.span(2))
    return f"{found[0][:start]}\n{body}\n\n{found[0][end:]}"


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """The claims that head the full list (H1, H2, …) and were tested, each by its first metric, a column per data set.

    The page has all of them, by all metrics.
    """
    rows: dict[tuple[str, str, str], str] = {}  # claim and methods -> metric
    for verdict in verdicts:
        if verdict.claim.id.startswith("H") and verdict.difference is not None:
            rows.setdefault(_row(verdict), verdict.claim.metric)
    tested = [v for v in verdicts if v.difference is not None and rows.get(_row(v)) == v.claim.metric]
    first = {key: next(v for v in tested if _row(v) == key) for key in rows}
    data = list(dict.fromkeys(v.data for v in tested))
    lines = [line(["claim", "x beats y", "by", *data]), line([":---"] * (3 + len(data)))]
    for key in sorted(rows, key=lambda key: int(key[0][1:])):
        claim, protocol = first[key].claim, first[key].claim.protocol
        # two printed tables may say the same of two data sets: that is two claims, of which the first is shown
        same = [v for v in tested if _row(v) == key and (v.claim.protocol, v.claim.id) == (protocol, claim.id)]
        cells = ["; ".join(_said(v) for v in same if v.data == name) for name in data]
        methods = f"{claim.x} > {claim.y}" if claim.x != claim.y else claim.x
        by = claim.metric if claim.metric == claim.metric_y else f"{claim.metric} > {claim.metric_y}"
        lines.append(line([escape(f"{key[0]} {claim.statement}"), escape(methods), escape(by), *cells]))
    return "\n".join(lines)


def _row(verdict: Verdict) -> tuple[str, str, str]:
    claim = verdict.claim
    return claim.id.split()[0], claim.x, claim.y + "".join(claim.attributes)


def _said(verdict: Verdict) -> str:
    """``preserved, +.091 [.069–.114]``; a violated claim stands out, and three seeds are named."""
    found = verdict.difference
    assert found is not None, "only what was tested is told"
    word = f"**{verdict.outcome}**" if verdict.outcome == "violated" else verdict.outcome
    number = f"{found.value:+.3f}".replace("0.", ".", 1) if abs(found.value) < 1 else f"{found.value:+.2f}"
    seeds = f" ({min(verdict.seeds)} seeds)" if min(verdict.seeds) > 1 else ""
    return f"{word}, {number} [{span(found.low, found.high)}]{seeds}"
