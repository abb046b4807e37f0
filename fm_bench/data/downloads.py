# SPDX-License-Identifier: MIT
"""Where each public data set comes from, what may be fetched from there, and fetching it.

Only what anyone may download without an account is fetched, and only when asked for. Everything else is behind its
authors' terms: ``where`` says whom to ask and where to put what they give.
"""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from fm_bench.data.archives import extract
from fm_bench.data.fetching import Remote, fetch
from fm_bench.errors import UserError

_HUGGING_FACE = (
    "https://huggingface.co/datasets/ashraq/fashion-product-images-small/resolve/"
    "bd09c69e56fc0b1f279743fef89d735f3bdf8a42/data"
)


class Source(NamedTuple):
    """A data set's home."""

    get: str  # how to come by it: a clause in the imperative
    put: str  # what the folder --data.root must hold
    files: tuple[Remote, ...] = ()  # what may be fetched
    then: str = ""  # what is still missing once these are fetched


SOURCES: dict[str, Source] = {
    "fashion-product": Source(
        "download Fashion Product Images (kaggle.com/datasets/paramaggarwal/fashion-product-images-dataset), unpack it",
        "styles.csv, images/ and styles/, or the Parquet files of a copy on Hugging Face",
        tuple(
            Remote(f"data/{name}", f"{_HUGGING_FACE}/{name}")
            for name in (
                "train-00000-of-00002-6cff4c59f91661c3.parquet",
                "train-00001-of-00002-bb459e5ac5f01e71.parquet",
            )
        ),
    ),
    "fashion-iq": Source(
        "clone github.com/XiaoxiaoGuo/fashion-iq; its README says where the predicted attributes are and leads to the "
        "addresses of the images",
        "image_splits/, the files asin2attr.*.json and the images as ASIN.jpg",
        (
            Remote(
                "fashion-iq-master.zip",
                "https://github.com/XiaoxiaoGuo/fashion-iq/archive/refs/heads/master.zip",
                unpack=True,
            ),
        ),
        "The attributes (asin2attr.*.json) and the images are not in that archive; its README says where they are.",
    ),
    "shopping100k": Source(
        "ask the authors of Shopping100k for the images (sites.google.com/view/kenanemirak), and take the split files "
        "from github.com/amzn/fashion-attribute-disentanglement with `git lfs pull`",
        "the images and the split files in splits/Shopping100k/",
    ),
    "darn": Source(
        "take data.zip and the list of image addresses that github.com/Maryeon/asenpp names, and fetch the images",
        "filenames_*.txt, label_train.txt, query_*.txt, candidate_*.txt and the images in pic/",
    ),
    "deepfashion": Source(
        "ask for DeepFashion's Category and Attribute Prediction Benchmark "
        "(mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html) and unpack it with the password that its authors send",
        "Anno_coarse/ or Anno_fine/, Eval/ and img/",
    ),
    "deepfashion-inshop": Source(
        "ask for DeepFashion's In-shop Clothes Retrieval Benchmark (mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html) "
        "and unpack it with the password that its authors send",
        "Anno/, Eval/ and img/",
    ),
    "deepfashion-c2s": Source(
        "ask for DeepFashion's Consumer-to-shop Clothes Retrieval Benchmark "
        "(mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html) and unpack it with the password that its authors send",
        "Anno/, Eval/ and img/",
    ),
}
"""Every data set that is not drawn or the user's own, by reader."""


def where(reader: str) -> str:
    """How to come by a data set and where to put it, as the end of an error message."""
    source = SOURCES[reader]
    text = f"{source.get}, and pass the folder that holds {source.put} as --data.root."
    if source.files:
        what = "the annotations" if source.then else "a copy with small pictures"
        text += f" `fm-bench data prepare {reader} --download --data.root DIR` fetches {what}."
    return text


def download(reader: str, root: Path, console: Console) -> None:
    """Fetches what may be fetched of a data set, continuing what an earlier call began, and unpacks archives.

    Args:
        reader: its name.
        root: the folder that will hold it; made if it is not there.
        console: where progress is shown.

    Raises:
        UserError: if nothing of it may be fetched, a server cannot be reached, or what came is not what should have.
    """
    source = SOURCES.get(reader)
    if source is None:
        raise UserError(f"{reader} needs no download: leave --download out.")
    if not source.files:
        raise UserError(f"{reader} cannot be fetched without its authors' leave: {where(reader)}")
    for remote in source.files:
        path = fetch(remote, root, console)
        console.print(f"{path}", highlight=False)
        if remote.unpack:
            files = extract(path, root)
            console.print(f"{len(files):,} files unpacked from it", highlight=False)
    if source.then:
        console.print(source.then, highlight=False)
