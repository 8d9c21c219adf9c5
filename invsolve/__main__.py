"""``python -m invsolve``: the command line, for programs such as ``torchrun -m`` that start modules."""

from __future__ import annotations

from invsolve.cli.main import main

if __name__ == "__main__":
    main()
