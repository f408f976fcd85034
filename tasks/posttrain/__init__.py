"""Post-training: the base model becomes an SFT model, a reward model and a policy."""
