"""Operations that reduce rows of a tensor."""
