"""Inference engines behind one interface (`interface.py`); one file an engine."""
