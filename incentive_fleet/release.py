"""Which release this is, as its package says. For every room; it knows nothing else."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


@cache
def version() -> str:
    """The package's version; "unknown" where it runs without having been installed."""
    try:
        return version_of("incentive-fleet")
    except PackageNotFoundError:
        return "unknown"
