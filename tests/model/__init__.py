"""Tests of the plain data: the ledger's rules, stacks, units."""
