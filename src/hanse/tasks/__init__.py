"""What is learned: models, losses, metrics, and how a batch is made."""
