"""One file for each operation, in folders by family."""
