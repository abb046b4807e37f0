# SPDX-License-Identifier: MIT
"""Catalogues, requests and batches."""
