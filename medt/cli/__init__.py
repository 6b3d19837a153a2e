"""The commands: what `medt NAME` and scripts/NAME.py do is in the module of the name."""
