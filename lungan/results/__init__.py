"""From run folders to tables, tests, figures and one HTML page; needs neither torch nor Hydra."""
