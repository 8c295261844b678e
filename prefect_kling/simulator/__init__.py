"""A gateway on loopback that makes real clips and real trouble, for the demo and for tests."""
