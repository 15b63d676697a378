"""Operations of Langevin dynamics."""
