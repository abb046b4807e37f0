# SPDX-License-Identifier: MIT
"""Clothing detection as in DARN, Sec. 4.2: proposals, scores on their features, refined boxes, average precision."""
