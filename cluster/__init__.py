"""Consensus, the deterministic state machine and delivery."""
