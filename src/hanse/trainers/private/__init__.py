"""Local steps with `ExamplePrivacy`: Poisson batches, clipped per-example gradients, noise."""
