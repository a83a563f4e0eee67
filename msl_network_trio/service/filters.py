"""Selection of the keyword arguments that `Service.start` takes."""

from __future__ import annotations

import inspect
from typing import Any

from msl_network_trio.service.service import Service


def filter_service_start_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Return the keyword arguments that `Service.start` takes.

    ``auth_password``, the name that a Manager uses, becomes ``password_manager``, the name for a Service.
    """
    parameters = inspect.signature(Service.start).parameters.keys() - {"self"}
    known = {name: value for name, value in kwargs.items() if name in parameters}
    if "auth_password" in kwargs:
        known.setdefault("password_manager", kwargs["auth_password"])
    return known
