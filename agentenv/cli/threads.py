"""How threads of numerical libraries wait for each other."""

import os

__all__ = ["wait_briefly"]


def wait_briefly() -> None:
    """Lets OpenMP's threads spin for some microseconds before they sleep; called before torch is loaded.

    The parts of a small model's work are that short. On an idle machine threads that sleep at once
    (`OMP_WAIT_POLICY=PASSIVE`) take 1.5 times as long for it; on a busy one threads that spin for milliseconds, as by
    default, burn what those need that they wait for, and take several times as long. `GOMP_SPINCOUNT` is obeyed where
    it is set.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
