"""How a stage runs: skip or make and commit, leases, parallel shards, training processes."""
