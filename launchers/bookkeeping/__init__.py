"""The books of a campaign: candidates, runs and queue jobs brought together, whatever clock, queue and database."""
