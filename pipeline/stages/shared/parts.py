"""A part of a stage's work, which ends as a whole whatever was told of it on the way."""

from collections.abc import Callable


class Part:
    """Passes on shares of the part, which come to 1 in the end and never to more."""

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self._on_progress = on_progress
        self._left = 1.0

    def add(self, share: float) -> None:
        """This share was done since the last call; negative where it was in vain."""
        share = min(share, self._left)
        self._left -= share
        self._on_progress(share)

    def end(self) -> None:
        """All of it is done."""
        self.add(self._left)
