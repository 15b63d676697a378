"""What kernels of Boltzmann machines share: states, couplings, checks of arguments, tiles of products."""
