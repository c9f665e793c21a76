"""Judges: one file each, found by file name. `JUDGE` in the module is the class."""
