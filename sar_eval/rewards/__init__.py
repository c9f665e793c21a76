"""Judges that a training asks: rewards, and the hold-out that watches it; the prompts of both."""
