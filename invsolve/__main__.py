"""``python -m invsolve``: the command line, for programs such as ``torchrun -m`` that start modules."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from invsolve.cli.main import main

        main()
    except KeyboardInterrupt:  # before the command line could answer it, or after
        sys.stderr.write("interrupted\n")
        sys.exit(130)
