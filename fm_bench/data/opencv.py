# SPDX-License-Identifier: MIT
"""OpenCV's own threads, put aside where others have the cores already."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets OpenCV work in the calling thread alone. What was set before is set again afterwards.

    Its threads wait for a core while ours decode, or while those of a training step have not gone to sleep yet.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
