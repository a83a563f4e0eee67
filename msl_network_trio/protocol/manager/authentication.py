"""Authentication methods: the requirements of a Manager for new peers. Pure data."""

from __future__ import annotations

import attrs

from msl_network_trio.hidden import Hidden, hide


@attrs.frozen
class Authentication:
    """The authentication method of a Manager, if there is one.

    Raises:
        ValueError: There is more than one.
    """

    password: str | Hidden | None = attrs.field(default=None, converter=hide, repr=False)
    """The Manager's password, which every peer has to know; None: there is none."""

    hostname: bool = False
    """Whether the host of a peer has to be trusted."""

    login: bool = False
    """Whether a user has to log in."""

    def __attrs_post_init__(self) -> None:
        if (self.password is not None) + self.hostname + self.login > 1:
            raise ValueError("Cannot specify multiple authentication methods")
