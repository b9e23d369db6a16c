raise RuntimeError("this module is not the one that is meant")
