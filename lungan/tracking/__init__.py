"""Trackers by name: where a run's records go besides its folder."""


def no_tracker(*_: object) -> None:
    """``tracker=none``, which a run builds nothing for."""
