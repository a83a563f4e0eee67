"""The BasicMath Service: ``python -m msl_network_trio.examples.basic_math``."""

import time

from msl_network_trio.service.command import parser_for, start_from_command_line
from msl_network_trio.service.service import Service


class BasicMath(Service):
    """Calculates slowly, to show the benefit of concurrent requests.

    Its methods are plain ones that block, as those of most instruments do.
    """

    euler = 2.718281828459045

    def __init__(self, *, pace: float = 1.0) -> None:
        """Create the Service.

        Args:
            pace: Seconds that an addition takes; other calculations take up to six times as long.
        """
        super().__init__()
        self._pace = pace

    @property
    def pi(self) -> float:
        """The ratio of a circle's circumference to its diameter."""
        return 3.141592653589793

    def add(self, x: float, y: float) -> float:
        """Return x + y, after one unit of time."""
        self._think(1)
        return x + y

    def subtract(self, x: float, y: float) -> float:
        """Return x - y, after two units of time."""
        self._think(2)
        return x - y

    def multiply(self, x: float, y: float) -> float:
        """Return x * y, after three units of time."""
        self._think(3)
        return x * y

    def divide(self, x: float, y: float) -> float:
        """Return x / y, after four units of time."""
        self._think(4)
        return x / y

    def ensure_positive(self, x: float) -> bool:
        """Return True after five units of time.

        Raises:
            ValueError: x is less than 0.
        """
        self._think(5)
        if x < 0:
            raise ValueError("The value is < 0")
        return True

    def power(self, x: float, n: float = 2) -> float:
        """Return x to the power of n, after six units of time."""
        self._think(6)
        result: float = x**n
        return result

    def _think(self, units: int) -> None:
        time.sleep(units * self._pace)


if __name__ == "__main__":
    parser = parser_for(BasicMath, "msl_network_trio.examples.basic_math")
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="time that an addition takes (default: %(default)s)",
    )
    options = parser.parse_args()
    start_from_command_line(BasicMath(pace=options.pace), options)
