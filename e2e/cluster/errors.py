"""What can go wrong with the local cluster. One kind of error: its message says what to look at or to do."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster or an image could not be made or changed."""
