"""Documents to unique documents: exact and near duplicates, contamination."""
