# SPDX-License-Identifier: MIT
"""Pictures of a trained run as vectors, outside of a ``Trainer``: in order, on one process, however many trained."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from fm_bench.data.batches import GalleryBatch, LabelledBatch, QueryBatch
from fm_bench.methods.base import Context, Method
from fm_bench.outcomes.trained import Trained
from fm_bench.retrieval.distances import F32, blocks, check_embeddings


def in_order(trained: Trained, loader: DataLoader[Any], count: int) -> Iterator[Any]:
    """The first ``count`` pictures behind ``loader`` as normalised batches on the method's device.

    They are read here, whoever's share the loader would give: other processes of the run wait meanwhile.
    """
    data, device = trained.datamodule, trained.method.device
    for part in blocks(count, trained.config.loader.eval_batch_size):
        batch = loader.dataset[np.arange(part.start, part.stop)]
        yield data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)


def plain_vectors(method: Method, batch: LabelledBatch | GalleryBatch | QueryBatch) -> Tensor:
    """``(B, D)`` of pictures as they are; true labels reach only methods that declare the need."""
    rows = batch.index if isinstance(batch, LabelledBatch) else batch.image_index
    context = Context(batch.labels if method.needs_labels else None, batch.domain, rows)
    return method.embed_gallery(batch.image, context).float()


def vectors_of(trained: Trained, loader: DataLoader[Any], count: int, *embeds: Callable[[Any], Tensor]) -> list[F32]:
    """What each of ``embeds`` makes of the first ``count`` pictures behind ``loader``: arrays ``(count, D)``.

    Raises:
        UserError: if a vector is NaN or infinite.
    """
    parts: list[list[NDArray[np.float32]]] = [[] for _ in embeds]
    with torch.no_grad(), precision(trained.config.trainer, trained.method.device):
        for batch in in_order(trained, loader, count):
            for part, embed in zip(parts, embeds, strict=True):
                part.append(embed(batch).float().cpu().numpy())
    return [check_embeddings(np.concatenate(part), "picture") for part in parts]


def precision(trainer: Mapping[str, Any], device: torch.device) -> torch.autocast:
    """The mixed precision that the run's ``Trainer`` would compute in."""
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    kind = kinds.get(str(trainer.get("precision")))
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)
