# SPDX-License-Identifier: MIT
"""OpenCV's own threads, put aside where others have the cores already."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets OpenCV work in the calling thread alone, in the whole process; what was set before is set again afterwards.

    Its threads wait for a core while ours decode, or while those of a training step have not gone to sleep yet. Not for
    two threads at once, of which the second would find, and set again, what the first has set.
    """
    threads = cv2.getNumThreads()
    if threads < 2:  # in a loader's process, say: setting it there would wait for threads that its parent alone has
        yield
        return
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
