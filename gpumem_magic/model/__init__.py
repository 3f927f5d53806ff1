"""Plain data: events, stacks, allocations, cells, snapshots and units. No I/O, no clock, no global."""
