"""Operations on Boltzmann machines."""
