# SPDX-License-Identifier: MIT
"""What stands in the README between its markers: results of some protocols, and what became of the papers' claims."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fm_bench.errors import UserError
from fm_bench.files import write_text
from fm_bench.leaderboard.claims import Verdict
from fm_bench.leaderboard.record import Record
from fm_bench.leaderboard.table import escape, line, markdown_table, span

RESULTS = ("<!-- results:begin -->", "<!-- results:end -->")
CLAIMS = ("<!-- claims:begin -->", "<!-- claims:end -->")


def update_readme(
    path: Path,
    records: Iterable[Record],
    verdicts: Sequence[Verdict] = (),
    protocols: Sequence[str] = ("manipulate-1",),
    *,
    check: bool = False,
) -> bool:
    """Puts results and verdicts between the markers of the file at ``path``.

    Args:
        path: a Markdown file with the lines ``<!-- results:begin -->`` and ``<!-- results:end -->``; the claims go
            between ``<!-- claims:begin -->`` and ``<!-- claims:end -->``, if it has these, too.
        records: what to show.
        verdicts: on the papers' claims.
        protocols: which results, in this order.
        check: only compare, and leave the file as it is.

    Returns:
        True if what stood there was not up to date.

    Raises:
        UserError: if the file or its markers are missing.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}): check the path.") from error
    records = list(records)
    results = "\n\n".join(filter(None, (markdown_table(records, protocol) for protocol in protocols)))
    new = _between(path, text, RESULTS, results)
    if CLAIMS[0] in text:
        new = _between(path, new, CLAIMS, claims_table(verdicts))
    if new != text and not check:
        write_text(Path(path), new)
    return new != text


def _between(path: Path, text: str, markers: tuple[str, str], body: str) -> str:
    before, begin, rest = text.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise UserError(f"{path} has no lines {markers[0]} and {markers[1]}: put them where the results belong.")
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


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
        same = [v for v in tested if _row(v) == key and v.claim.protocol == protocol]
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
