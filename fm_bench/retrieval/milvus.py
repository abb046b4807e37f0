# SPDX-License-Identifier: MIT
"""A gallery in a Milvus collection: embedded in this process (milvus-lite), or on a cluster; the client is the same.

Milvus proposes images, and exact distances to the vectors at hand put them in order. A collection is named after the
vectors in it: a later run with the same vectors finds them there, and others never meet.
"""

import hashlib
import math
import os
import re
import secrets
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError, unknown
from fm_bench.retrieval.distances import F32, I64, blocks
from fm_bench.retrieval.reranked import Reranked

CREDENTIALS = "MILVUS_TOKEN"
"""Environment variable with the token, or ``user:password``, of a cluster."""
KINDS = ("HNSW", "FLAT", "IVF_FLAT", "IVF_SQ8")
"""Index types that milvus-lite and clusters both know."""
_INSERTED_BYTES = 4 << 20  # in one message; clusters take no more than 64 MiB
_QUERIES = 128  # in one message: an answer of 2,000 images each stays far below that
_FIELD = "vector"


def load_client() -> ModuleType:
    """The module ``pymilvus``. Raises UserError if the extra is not installed."""
    try:
        import pymilvus
    except ImportError as error:
        raise UserError(
            f"an index in Milvus needs the extra 'milvus' ({error}): run pip install 'fm-bench[milvus]'."
        ) from error
    module: ModuleType = pymilvus
    return module


def check_place(uri: str, kind: str) -> None:
    """Raises UserError unless a collection of index type ``kind`` can be asked for at ``uri``."""
    if kind not in KINDS:
        raise unknown("Milvus index type", kind, KINDS)
    if re.search(r"://.*@", uri):
        raise UserError(
            "the address of Milvus holds a user or password: leave them out, and put user:password or the token into "
            f"the environment variable {CREDENTIALS}."
        )
    is_cluster = re.match(r"https?://[^/\s]|tcp://[^/\s]|unix:///?[^/\s]", uri) is not None
    if not is_cluster and (not uri.endswith(".db") or re.match(r"(https?|tcp|unix):", uri)):
        raise UserError(
            f"{uri!r} is no place of Milvus: give a file that ends in .db, e.g. milvus:gallery.db, or the address of a "
            "cluster, e.g. milvus:http://localhost:19530."
        )
    load_client()


class MilvusIndex(Reranked):
    """A gallery in a Milvus collection.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped; inserted block by block unless it is there already.
        keys: ``(N,)`` integers that name the images, all different; they order equal distances. Default: positions.
        seed: of the order of equal distances.
        uri: a file ending in ``.db`` for milvus-lite, or the address of a cluster, whose token is in ``MILVUS_TOKEN``.
        kind: ``HNSW``, ``FLAT``, ``IVF_FLAT`` or ``IVF_SQ8``. milvus-lite builds them with settings of its own.

    Raises:
        UserError: if the extra is not installed, Milvus cannot be reached or refuses, or the gallery is not finite.
    """

    def __init__(
        self,
        gallery: F32,
        *,
        keys: NDArray[np.integer[Any]] | None = None,
        seed: int = 0,
        uri: str,
        kind: str = "HNSW",
    ) -> None:
        super().__init__(gallery, keys=keys, seed=seed)
        check_place(uri, kind)
        self.uri, self.kind = uri, kind
        self._pymilvus = load_client()
        self.name = f"fm_bench_{_digest(self.gallery)}_{kind}"
        if "://" not in uri:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client = self._pymilvus.MilvusClient(uri, token=os.environ.get(CREDENTIALS, ""))
            self.reused = self._is_filled()
            if not self.reused:
                self._fill()
            self._client.load_collection(self.name)
        except (self._pymilvus.MilvusException, OSError) as error:
            raise self._complaint(error) from error

    def propose(self, queries: F32, count: int) -> I64:
        """``(R, count)`` gallery positions; −1 where Milvus finds fewer."""
        ids = np.full((len(queries), count), -1)
        search = {"metric_type": "L2", "params": {"HNSW": {"ef": 2 * count}}.get(self.kind, {"nprobe": self._probes()})}
        for part in blocks(len(queries), _QUERIES):
            try:
                found = self._client.search(
                    self.name, data=list(queries[part]), limit=count, search_params=search, output_fields=["id"]
                )
            except self._pymilvus.MilvusException as error:
                raise self._complaint(error) from error
            for row, hits in enumerate(found, start=part.start):
                ids[row, : len(hits)] = [hit["id"] for hit in hits]
        return ids

    def size(self) -> int | None:
        """Bytes of the collection's files where it is embedded; None on a cluster, which does not tell."""
        if "://" in self.uri:
            return None
        files = (path for path in Path(self.uri).glob(f"collections/{self.name}/**/*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def _lists(self) -> int:
        return min(len(self), 4 * round(math.sqrt(len(self))))

    def _probes(self) -> int:
        return round(math.sqrt(self._lists()))

    def _is_filled(self) -> bool:
        """Whether the collection holds the whole gallery. It has its name only once it is whole."""
        if not self._client.has_collection(self.name) or not self._client.list_indexes(self.name):
            return False
        self._client.load_collection(self.name)
        counted = self._client.query(self.name, filter="", output_fields=["count(*)"])
        return int(counted[0]["count(*)"]) == len(self)

    def _fill(self) -> None:
        """Inserts the gallery under a name of this process, and renames it when it is whole.

        So runs with the same vectors may fill at once: the first gives its collection the name, and the others drop
        theirs. What a killed run left keeps its own name.
        """
        own = f"{self.name}_{secrets.token_hex(6)}"
        try:
            self._insert(own)
            if self._client.has_collection(self.name) and not self._is_filled():  # images were taken out of it
                self._client.drop_collection(self.name)
            try:
                self._client.rename_collection(own, self.name)
            except self._pymilvus.MilvusException:
                if not self._is_filled():  # otherwise another run was first
                    raise
        finally:
            if self._client.has_collection(own):
                self._client.drop_collection(own)

    def _insert(self, name: str) -> None:
        kinds = self._pymilvus.DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field(_FIELD, kinds.FLOAT_VECTOR, dim=self.dim)
        self._client.create_collection(name, schema=schema, consistency_level="Strong")
        for part in blocks(len(self), max(1, _INSERTED_BYTES // (4 * self.dim))):
            rows = [{"id": part.start + i, _FIELD: vector} for i, vector in enumerate(np.asarray(self.gallery[part]))]
            self._client.insert(name, rows)
        self._client.flush(name)
        settings = {"HNSW": {"M": 32, "efConstruction": 200}, "FLAT": {}}.get(self.kind, {"nlist": self._lists()})
        indexes = self._client.prepare_index_params()
        indexes.add_index(_FIELD, index_type=self.kind, metric_type="L2", **settings)
        self._client.create_index(name, indexes)

    def _complaint(self, error: Exception) -> UserError:
        text = " ".join(str(getattr(error, "message", error)).split())[:200]
        return UserError(f"Milvus at {self.uri} did not do what was asked ({text}): is it running, and this its place?")


def _digest(gallery: F32) -> str:
    """Of the vectors and their order, 24 digits."""
    found = hashlib.sha256(repr(gallery.shape).encode())
    for part in blocks(len(gallery), 1 << 14):
        found.update(np.ascontiguousarray(gallery[part]).data)
    return found.hexdigest()[:24]
