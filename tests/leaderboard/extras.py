# SPDX-License-Identifier: MIT
"""Made-up extras for the tests of method pages; none of these numbers was measured."""

import hashlib
import io
from typing import Any

from PIL import Image

from fm_bench.leaderboard.extras import Example, Extras, Look, Map, Rates, Result, Sheet, Wish
from fm_bench.leaderboard.record import Record


def picture() -> bytes:
    """A sheet of 2 x 2 pictures, each of one colour."""
    sheet = Image.new("RGB", (20, 20))
    for at, colour in enumerate(("red", "green", "blue", "white")):
        sheet.paste(colour, (at % 2 * 10, at // 2 * 10, at % 2 * 10 + 10, at // 2 * 10 + 10))
    file = io.BytesIO()
    sheet.save(file, "WEBP")
    return file.getvalue()


def extras(record: Record, text: str = "", *, pictures: bool = True, **changes: Any) -> Extras:
    """Extras of ``record`` with one example of each kind; every text holds ``text`` as well."""
    cells = iter(range(4)) if pictures else iter([None] * 4)
    rate = {"value": 0.25, "low": 0.2, "high": 0.3}
    typical = Example(
        "typical",
        3,
        70,
        (Wish(f"colour{text}", f"red{text}", f"blue{text}"),),
        1,
        next(cells),
        next(cells),
        0 if pictures else None,
        (Result(5, True, (), next(cells)), Result(6, False, (f"colour: red{text}", "fit: slim"), next(cells))),
    )
    worst = typical._replace(kind="worst", request=4, hits=0, wishes=(), prototype=None, truth=None)
    fields: dict[str, Any] = {
        "fingerprint": record.fingerprint,
        "description": (f"A memory{text}",),
        "about": (f"Zhao et al., CVPR 2017{text}.", f"Follows: ``Eq. 4``{text}.", "Differs: nothing."),
        "changed": {f"hyper.memory{text}": ("True", f"False{text}")},
        "curves": {
            f"ranking{text}": {
                "train/loss": tuple((float(x), 3.0 / x) for x in range(1, 6)),
                "val/accuracy@20": ((1.0, 0.3), (2.0, 0.5)),
                f"train/rank{text}": ((1.0, 0.1),),
            }
        },
        "without_curves": {"attributes": f"trained elsewhere{text}"},
        "rates": {
            "manipulate-1": Rates(
                1500,
                10,
                {"followed": rate, "ignored": rate | {"value": 0.3}, "lost": rate},
                {"colour": {"followed": 0.125, "ignored": 0.625, "lost": 0.5}, f"fit{text}": {"lost": 0.75}},
            )
        },
        "examples_of": f"manipulate-1{text}",
        "examples": (typical, worst),
        "looks": (Look(70, 0, (Map(f"colour{text}", f"red{text}", 1),)),) if pictures else (),
        "sheet": Sheet(hashlib.sha256(picture()).hexdigest(), 2, 2, 10, 10) if pictures else None,
    }
    return Extras(**(fields | changes))
