"""Run the fuzzer for 60 seconds or a given time; exit with an error at the first finding."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["msl_network_trio.protocol"]):
    from tests.fuzz.target import SEEDS, fuzz


def main() -> None:
    """Run libFuzzer, which ends the process."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1", "-verbosity=1"]
        atheris.Setup([sys.argv[0], *options, folder], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
