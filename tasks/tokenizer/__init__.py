"""Documents to a byte-level BPE tokenizer, and to sharded Arrow tokens."""
