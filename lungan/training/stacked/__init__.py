"""Runs of one shape, trained as one: every tensor has a dimension of runs."""
