"""What a plugin's author imports, by way of `boltzbench.harness`. It imports nothing else of the harness."""
