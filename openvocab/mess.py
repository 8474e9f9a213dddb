"""The table of the MESS benchmark: the mean of each domain, next to what others published.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openvocab.benchmarks import BENCHMARKS, MESS

DOMAIN_HEADER = ["MESS", *MESS, "mean", "datasets"]
DOMAIN_NOTE = (
    "Means of mIoU over the datasets of a domain and over all of them; in brackets: of how many, if some are missing.\n"
    "PAXRay-4 counts as one dataset, the mean of its four. Published rows: README of the MESS toolkit, first version;\n"
    "supervised: the best network trained on each dataset."
)
# In the order of the domains, and the mean over the 22 datasets.
PUBLISHED: dict[str, tuple[float, float, float, float, float, float]] = {
    "published: random": (1.17, 7.11, 29.51, 11.71, 6.14, 10.27),
    "published: ZSSeg-B": (19.98, 17.98, 41.82, 14.0, 22.32, 22.73),
    "published: ZegFormer-B": (13.57, 17.25, 17.47, 17.92, 25.78, 17.57),
    "published: X-Decoder-T": (21.99, 18.92, 23.25, 15.31, 19.05, 19.91),
    "published: OpenSeeD-T": (22.31, 25.14, 44.43, 16.69, 10.53, 24.35),
    "published: SAN-B": (29.35, 30.64, 29.85, 23.58, 15.07, 26.74),
    "published: Grounded-SAM-B": (29.51, 25.97, 37.38, 29.51, 17.66, 28.52),
    "published: CAT-Seg-B": (34.96, 34.57, 41.65, 26.26, 29.32, 33.74),
    "published: OVSeg-L": (29.54, 29.04, 31.9, 14.16, 28.64, 26.94),
    "published: SAN-L": (36.18, 38.83, 30.27, 16.95, 20.41, 30.06),
    "published: CAT-Seg-L": (39.93, 39.85, 48.49, 26.04, 34.06, 38.14),
    "published: CAT-Seg-H": (37.98, 37.74, 34.65, 29.04, 37.76, 35.66),
    "published: supervised": (49.15, 79.12, 89.49, 67.66, 81.94, 71.13),
}


def domain_rows(results: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows below ``DOMAIN_HEADER``: this run's, then the published ones; none without a benchmark of MESS.

    results: with ``benchmark``, ``scores`` and ``quoted_score``, as the suite writes them.
    """
    scores = {result["benchmark"]: result["scores"][result["quoted_score"]] for result in results}
    means: dict[str, dict[str, float]] = {}  # domain -> dataset -> mIoU
    sizes = {}
    for domain in MESS:
        members: dict[str, list[str]] = {}
        for benchmark in (one for one in BENCHMARKS.values() if one.domain == domain):
            members.setdefault(benchmark.part_of or benchmark.name, []).append(benchmark.name)
        sizes[domain] = len(members)
        means[domain] = {
            dataset: sum(scores[name] for name in names) / len(names)
            for dataset, names in members.items()
            if all(name in scores for name in names)
        }
    every = [score for of_domain in means.values() for score in of_domain.values()]
    if not every:
        return []
    cells = [_cell(list(means[domain].values()), sizes[domain]) for domain in MESS]
    own = ["this run", *cells, _cell(every, sum(sizes.values())), len(every)]
    return [own, *([name, *row, sum(sizes.values())] for name, row in PUBLISHED.items())]


def _cell(values: Sequence[float], wanted: int) -> float | str:
    """The mean; as text with the number of values if some are missing, "-" if all are."""
    if len(values) == wanted:
        return sum(values) / len(values)
    return f"{sum(values) / len(values):.2f} ({len(values)})" if values else "-"
