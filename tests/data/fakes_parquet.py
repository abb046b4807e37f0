# SPDX-License-Identifier: MIT
"""A tiny copy of Fashion Product Images as Parquet, as Hugging Face has it.

Traps: two files with several row groups; the year is a number with gaps; missing values are both null and the text NA;
the picture is a struct of bytes and path, a row of it null; an id is repeated.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fakes import COLOURS, jpeg, picture

NULL_ROW = 11
"""Row of the first file without a picture."""


def write(root: Path, items: int = 240, *, struct: bool = True, groups: int = 25, seed: int = 0) -> Path:
    """Writes ``root/data/train-0000{0,1}-of-00002.parquet``; returns ``root``."""
    rng = np.random.default_rng(seed)
    (root / "data").mkdir(parents=True)
    rows = [_row(1000 + i, rng) for i in range(items)]
    rows[-1]["id"] = rows[-2]["id"]
    for part in range(2):
        half = rows[part::2]
        images = [jpeg(picture(COLOURS[row["baseColour"] or "Red"], int(row["id"]) + i)) for i, row in enumerate(half)]
        held: list[object] = list(images)
        if not part:
            held[NULL_ROW] = None
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
        cells = [{"bytes": each, "path": None} for each in held] if struct else held
        columns = {name: [row[name] for row in half] for name in half[0]} | {"image": pa.array(cells, kind)}
        pq.write_table(pa.table(columns), root / f"data/train-0000{part}-of-00002.parquet", row_group_size=groups)
    return root


def _row(number: int, rng: np.random.Generator) -> dict[str, object]:
    def pick(*values: object) -> object:
        return values[rng.integers(len(values))]

    return {
        "id": number,
        "gender": pick("Men", "Women"),
        "masterCategory": "Apparel",
        "subCategory": "Topwear" if number % 12 else "Bottomwear",
        "articleType": pick("Shirts", "Tshirts", "Tops"),
        "baseColour": pick(*COLOURS) if number % 30 else None,
        "season": pick("Summer", "Fall", "NA"),
        "year": None if number % 9 == 0 else float(2011 + number % 3),
        "usage": pick("Casual", "Formal"),
        "productDisplayName": f"Item, {number}",
    }
