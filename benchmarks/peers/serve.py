"""Process of the server of a peer: ``python -m benchmarks.peers.serve NAME``.

When it listens, it reports the ``port`` on 127.0.0.1 to its parent. It ends at the end of standard input.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from benchmarks.parent import end_with_parent, say_ready, take_standard_output
from benchmarks.peers import PEERS, Files, peer_named


def _announce(for_parent: TextIO, port: int, pids: Sequence[int] = ()) -> None:
    say_ready(for_parent, {"port": port, "pids": list(pids) or [os.getpid()]})


def main() -> None:
    """Serve until the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.serve", description=__doc__)
    parser.add_argument("peer", choices=[peer.name for peer in PEERS])
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="default: no TLS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key of the certificate")
    options = parser.parse_args()
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key belong together")
    peer = peer_named(options.peer)
    assert peer is not None
    for_parent = take_standard_output()
    end_with_parent()
    files = None if options.certificate is None else Files(options.certificate, options.key)
    importlib.import_module(peer.module).serve(files, partial(_announce, for_parent))


if __name__ == "__main__":
    main()
