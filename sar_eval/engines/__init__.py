"""Engines: one file each, found by file name. `ENGINE` in the module is the class."""
