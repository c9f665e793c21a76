"""Trackers: one file each, found by file name. `TRACKER` in the module is the class."""
