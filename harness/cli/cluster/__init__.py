"""The commands for plans on many machines."""
