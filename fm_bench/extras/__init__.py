# SPDX-License-Identifier: MIT
"""What a run leaves for its method's page: learning curves, how requests fail, examples with small pictures."""
