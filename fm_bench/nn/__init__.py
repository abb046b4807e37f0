# SPDX-License-Identifier: MIT
"""What two or more methods share: backbones, losses, schedules."""
