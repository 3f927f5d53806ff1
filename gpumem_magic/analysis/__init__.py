"""Pure functions: a Snapshot in, an answer out. No I/O, no clock, no global."""
