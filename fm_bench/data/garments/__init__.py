# SPDX-License-Identifier: MIT
"""The embedded catalogue."""
