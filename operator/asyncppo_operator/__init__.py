"""The Kopf operator that turns AsyncPPOJobs into running programs. No torch."""
