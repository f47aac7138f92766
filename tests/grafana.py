"""The generator of the dashboard, which lies beside what it makes and is no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).parents[1] / "deploy/monitoring/dashboard.py"


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("deployed_dashboard", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dashboard: Final = _loaded()
