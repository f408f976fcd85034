"""What passes between stages: configs, manifests, steps and the store that keeps them."""
