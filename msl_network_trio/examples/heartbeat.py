"""The Heartbeat Service: ``python -m msl_network_trio.examples.heartbeat``."""

import trio

from msl_network_trio.arguments import number
from msl_network_trio.service import command
from msl_network_trio.service.service import Service


class Heartbeat(Service):
    """Emits a notification with a number that grows by one, again and again."""

    def __init__(self) -> None:
        """Make the Service; its heart beats once a second."""
        super().__init__()
        self._interval = 1.0
        self._beats = 0
        self._alive = False
        self.add_tasks(self._beat)

    async def kill(self) -> None:
        """End the heartbeat; requests are still answered."""
        self._alive = False

    async def reset(self) -> None:
        """Count from 0 again."""
        self._beats = 0

    async def set_heart_rate(self, beats_per_second: float) -> None:
        """Change how often the heart beats, from the next beat on.

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
