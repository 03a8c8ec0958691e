"""Add up junit reports, and fail if a test was skipped that should have run here.

A suite that skips what it cannot do looks green while it proves nothing: so whatever is skipped in CI, or passes or
fails as "expected", is an error unless its reason is listed below. The last line printed sums up all the reports.
"""

from __future__ import annotations

import sys
from xml.etree import ElementTree

# A pattern would let new skips in unseen: these are whole reasons.
ALLOWED: set[str] = set()


def main(paths: list[str]) -> int:
    """Print what was skipped and a summary in pytest's words; return 1 if a skip was not allowed."""
    tests, seconds, skipped = 0, 0.0, []
    for path in paths:
        root = ElementTree.parse(path).getroot()
        for suite in root.iter("testsuite"):
            tests += int(suite.get("tests", 0))
            seconds += float(suite.get("time", 0))
        for case in root.iter("testcase"):
            reasons = [skip.get("message", "no reason") for skip in case.iter("skipped")]
            skipped += [(f"{case.get('classname')}::{case.get('name')}", reason) for reason in reasons]
    refused = [f"skipped, though it must run here: {name}: {why}" for name, why in skipped if why not in ALLOWED]
    print("\n".join([*refused, f"{len(skipped)} of {tests} skipped, {len(skipped) - len(refused)} of them allowed"]))
    print(f"==== {tests - len(skipped)} passed, {len(skipped)} skipped in {seconds:.2f}s ====")
    return 1 if refused or not tests else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
