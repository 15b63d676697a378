"""Operations on Ising spins."""
