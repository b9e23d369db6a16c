"""What all programs of an AsyncPPOJob share: the API, the wire, version sync, the local runner, reports. No kopf, no torch."""
