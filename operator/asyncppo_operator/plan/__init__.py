"""From a job and what is observed of it to the objects it should have and the actions to take. Pure: no clock, no network, no random."""
