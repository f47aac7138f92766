"""Where the program starts: it listens for signals before it imports anything else, then runs the command line."""

from __future__ import annotations

import sys
from typing import NoReturn

from incentive_fleet.cli import interrupts, streams


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    streams.prepare()
    interrupts.listen(sys.argv[1:])
    try:
        from incentive_fleet.cli.root import run
    except interrupts.Interrupted as early:
        code = interrupts.interrupted(early.number)
    else:
        code = run()
    interrupts.leave(code)


if __name__ == "__main__":
    main()
