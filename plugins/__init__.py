"""The built-in plugins, which use the public hooks only."""
