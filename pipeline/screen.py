"""What a person reads in a terminal. The only place that makes a console."""

from rich.console import Console


def screen(*, width: int | None = None, wraps: bool = False, is_quiet: bool = False) -> Console:
    """Where to print. Text stands there as it is: brackets, colons and numbers mean nothing.

    So a path or a name of the user's may hold anything; what has a style is given as ``Text``.
    ``wraps`` has a line go on for as long as it is, for the terminal to break.
    """
    return Console(
        width=width, quiet=is_quiet, soft_wrap=wraps, markup=False, emoji=False, highlight=False
    )
