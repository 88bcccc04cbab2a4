"""What a proxy does when a connection, a link or a host goes bad. `python -m chaos --help`."""
