"""What plugin authors import, by way of `boltzbench.harness`. It imports nothing else of the harness."""
