"""Environments behind one small interface (`interface.py`); `registry.py` makes one from a job's spec."""
