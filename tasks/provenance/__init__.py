"""Provenance: where the words of a reply stand in the training data, and why a model does not know an answer."""
