"""What command lines may choose from, as plain data: read by ``--help`` without importing torch."""

from __future__ import annotations

PRECISIONS = ("auto", "32", "bf16", "16", "bf16-mixed", "16-mixed", "32-true")
MODES = ("whole", "windows", "multi_scale")
VARIANTS = ("unit", "raw", "scaled", "summed")
