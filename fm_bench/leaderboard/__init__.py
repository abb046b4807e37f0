# SPDX-License-Identifier: MIT
"""Records of runs, and every table and page that is made from them."""
