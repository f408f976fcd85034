"""What people say of the models: rankings of completions, and votes between two models."""
