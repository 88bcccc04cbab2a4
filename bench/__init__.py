"""What a call costs here and in the peers, measured in one run. `python -m bench --help`."""
