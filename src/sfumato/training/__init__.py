"""Training with differential privacy: per-image gradients, clipped, noised, charged before they are taken."""
