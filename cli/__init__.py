"""The ``invsolve`` command."""
