"""Quantum ESPRESSO: inputs, runs, outcomes and repairs."""
