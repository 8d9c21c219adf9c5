"""How good a result is: against the truth, and against a set of pictures."""
