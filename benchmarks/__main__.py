"""`make bench`: the benchmarks that take minutes; the longer ones are started by themselves (see README.md)."""

from __future__ import annotations

import subprocess
import sys


def main() -> None:
    arguments = sys.argv[1:]
    for module, own in (("round_time", arguments), ("population", [])):
        print(f"\n{module}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *own], check=True)


if __name__ == "__main__":
    main()
