"""Score models: the contract, closed forms, the network, and what wraps them."""
