"""What `list` shows: a line for each thing, and all about one."""
