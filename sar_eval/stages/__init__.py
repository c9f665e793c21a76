"""The stages of a run, one verb a file. They meet only in the run folder."""
