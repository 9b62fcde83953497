"""Compare optimizers: which one, at which learning rate, for this problem? `compare("sgd,momentum,adam", "xor")`.

The rooms: contest (all optimizers under the same conditions), results (what came of it), sweepfile (what is finished,
on disk), pictures, report (one HTML file), command (`python -m layerwise.compare`).
"""

from layerwise.compare.command import main
from layerwise.compare.contest import RateTest, compare, find_lr, log_grid, rule_named, run_group
from layerwise.compare.results import Comparison, Profile, profile

__all__ = [
    "Comparison", "Profile", "RateTest", "compare", "find_lr", "log_grid", "main", "profile", "rule_named", "run_group",
]  # fmt: skip
