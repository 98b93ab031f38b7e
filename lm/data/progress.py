"""What reading a corpus tells, on standard error."""

from rich.console import Console


def tell(line: str) -> None:
    """A line about the data, of any length."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
