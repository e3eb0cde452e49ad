"""The one driver: when to stop, which samples leave, what is written down of a run."""
