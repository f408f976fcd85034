"""Token shards, conversations and preference pairs as training batches."""
