"""Where blocks of work run: worker processes on this machine."""
