"""`python -m drills [NAME ...]`: run drills, print what came of them, and write it down."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from drills import report
from drills.catalogue import DRILLS, Result, load, run, stage
from drills.servers import programs

LONG = ("soak", "away")  # begun first, where there are two lanes


def machine() -> str:
    """Return what figures depend on."""
    server = subprocess.check_output([programs() / "postgres", "--version"], text=True).split()[2]
    return f"{os.cpu_count()} cores, PostgreSQL {server}, Python {platform.python_version()}"


def main() -> int:
    """Run drills; return 1 if one did not pass."""
    load()
    parser = argparse.ArgumentParser(prog="drills", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all if none is given")
    parser.add_argument("--list", action="store_true", help="list them and end")
    parser.add_argument("--short", action="store_true", help="fewer rounds, shorter waits; nothing is written down")
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="how many at a time (2)")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in DRILLS]:
        parser.error(f"no drill called {', '.join(unknown)}; see --list")
    names = given.names or list(DRILLS)
    if given.list:
        print("\n".join(f"{name:20} {DRILLS[name].fault}\n{'':20} {DRILLS[name].passes}" for name in names))
        return 0
    results = run_all(names, short=given.short, lanes=given.lanes)
    if not given.short:
        report.publish(report.save(results, machine()), machine())
    failed = [result.name for result in results if not result.passed]
    print(f"\n{len(results) - len(failed)} of {len(results)} passed", *(f"failed: {name}" for name in failed), sep="\n")
    return 1 if failed else 0


def run_all(names: list[str], *, short: bool, lanes: int) -> list[Result]:
    """Run drills, some at a time, and print each when it is over."""

    def told(name: str) -> Result:
        result = run(DRILLS[name], here, short=short)
        print(report.line(result), flush=True)
        return result

    ordered = sorted(names, key=lambda name: name not in LONG)
    with stage() as here, ThreadPoolExecutor(lanes) as executor:
        return list(executor.map(told, ordered))


if __name__ == "__main__":
    sys.exit(main())
