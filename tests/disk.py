# SPDX-License-Identifier: MIT
"""A disk without room, for tests of what is said and what is left behind."""

import errno
import os


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
