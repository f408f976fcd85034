"""Base model to SFT model, reward model and policy."""
