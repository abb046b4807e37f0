# SPDX-License-Identifier: MIT
"""fm_bench: the benchmark of fashion search with attribute manipulation."""

__version__ = "0.1.0"
