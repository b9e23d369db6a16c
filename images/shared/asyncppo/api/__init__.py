"""The AsyncPPOJob API: models, what is true across them, manifests, the CRD. Owns the words of the user; no program's behaviour."""
