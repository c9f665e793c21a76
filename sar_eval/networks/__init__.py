"""The judges' networks, one folder each."""
