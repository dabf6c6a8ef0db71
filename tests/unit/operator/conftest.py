"""Makes ``tests.unit.operator`` and ``dev`` importable however pytest was started, and sets hypothesis up."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# A fixed choice of examples: what was green yesterday is green on a slower machine today.
settings.register_profile(
    "operator", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("operator")
