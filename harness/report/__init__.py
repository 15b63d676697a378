"""Tables, terminal output and the HTML page."""
