"""`support/` holds no tests: those in `support/one_room/` run in a copy of the tree, where their operation exists."""

collect_ignore = ["support"]
