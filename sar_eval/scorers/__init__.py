"""Scorers: numbers for pictures, one file each. `SCORER` in the module is the class."""
