"""Model sizes, memory, hours and cost, and the scaling law."""
