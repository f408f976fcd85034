"""The stage probe: what a base model knows before it is fine-tuned."""
