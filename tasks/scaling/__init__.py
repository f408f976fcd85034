"""Predicts a run's final loss from smaller runs."""
