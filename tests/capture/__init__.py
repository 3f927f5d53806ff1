"""Tests of the sources of facts: CUPTI and those who want it too, samples, the heartbeat."""
