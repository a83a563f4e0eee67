"""The Heartbeat Service: ``python -m msl_network_trio.examples.heartbeat``."""

import trio

from msl_network_trio.arguments import number
from msl_network_trio.service import command
from msl_network_trio.service.service import Service


class Heartbeat(Service):
    """Emits notifications with a counter, at an adjustable rate."""

    def __init__(self) -> None:
        """Create the Service; it emits one notification per second at first."""
        super().__init__()
        self._interval = 1.0
        self._beats = 0
        self._alive = False
        self.add_tasks(self._beat)

    async def kill(self) -> None:
        """Stop the notifications; requests are still answered."""
        self._alive = False

    async def reset(self) -> None:
        """Reset the counter to 0."""
        self._beats = 0

    async def set_heart_rate(self, beats_per_second: float) -> None:
        """Set the number of notifications per second, from the next one on.

        Raises:
            TypeError: The rate is no number.
            ValueError: The rate is not more than 0.
        """
        rate = number("beats_per_second", beats_per_second)
        if not rate > 0:
            raise ValueError("The heart rate must be more than 0")
        self._interval = 1 / rate

    async def _beat(self) -> None:
        self._alive = True
        while self._alive:
            self.emit_notification(self._beats)
            self._beats += 1
            await trio.sleep(self._interval)


if __name__ == "__main__":
    command.main(Heartbeat, "msl_network_trio.examples.heartbeat")
