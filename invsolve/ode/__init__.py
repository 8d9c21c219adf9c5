"""The probability-flow ODE: exact densities and the latent space."""
