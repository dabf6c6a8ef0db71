"""A figure with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, isfinite, log10


@dataclass(frozen=True)
class Quantity:
    """A figure with its standard uncertainty (None where it is a limit) and unit ("" for a pure number)."""

    value: float
    uncertainty: float | None
    unit: str = ""
    note: str | None = None
    """What a reader must know, such as `upper limit`."""

    def __str__(self) -> str:
        """Write the uncertainty with two digits and the value to the same place: 0.04117 ± 0.00018."""
        unit = f" {self.unit}" if self.unit else ""
        note = f" ({self.note})" if self.note else ""
        if not self.uncertainty or not isfinite(self.uncertainty):
            number = f"{self.value:.3g}" if self.uncertainty is None else f"{self.value:g}"
            return f"{number}{unit}{note}"
        places = max(0, 1 - floor(log10(abs(self.uncertainty))))
        return f"{self.value:.{places}f} ± {self.uncertainty:.{places}f}{unit}{note}"
