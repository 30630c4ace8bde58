"""From run folders to tables, tests, figures and one HTML page; needs neither torch nor Hydra."""

from lungan.results.report import Results, write_results

__all__ = ["Results", "write_results"]
