# SPDX-License-Identifier: MIT
"""A method for fm_bench in a package of its own."""
