"""One plugin for each operation, in folders by family."""
