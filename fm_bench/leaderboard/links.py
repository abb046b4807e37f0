# SPDX-License-Identifier: MIT
"""Where pages lie: the method pages in a folder beside the main page, one for each method and variant."""

import re

METHODS = "methods"
"""Folder of the method pages, beside the main page."""


def slug(label: str) -> str:
    """``amnet--no-memory`` for ``amnet/no-memory``: a file's name without suffix, whatever a record calls itself."""
    parts = (re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("._") for part in label.split("/"))
    return "--".join(part or "_" for part in parts)


def method_page(label: str) -> str:
    """The address of a method's page, as seen from the main page: ``methods/amnet--no-memory.html``."""
    return f"{METHODS}/{slug(label)}.html"
