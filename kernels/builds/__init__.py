"""The C++ compiler of this machine, and the cache of what was compiled."""
