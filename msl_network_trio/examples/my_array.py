"""The MyArray Service: ``python -m msl_network_trio.examples.my_array``."""

from msl_network_trio.service import command
from msl_network_trio.service.service import Service


class MyArray(Service):
    """Creates lists of numbers, and calculates with them."""

    async def linspace(self, start: float, stop: float, n: int = 100) -> list[float]:
        """Return evenly spaced numbers.

        Args:
            start: The first number.
            stop: The last number.
            n: The number of values, 2 or more.

        Raises:
            ValueError: n is less than 2.
        """
        if n < 2:
            raise ValueError("n must be 2 or more")
        step = (stop - start) / (n - 1)
        return [start + number * step for number in range(int(n))]

    async def scalar_multiply(self, scalar: float, data: list[float]) -> list[float]:
        """Return the product of a number and each number of a list."""
        return [scalar * element for element in data]


if __name__ == "__main__":
    command.main(MyArray, "msl_network_trio.examples.my_array")
