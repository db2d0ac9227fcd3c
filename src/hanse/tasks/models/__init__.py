"""Models as settings: frozen dataclasses that build a fresh `nn.Module` for a data schema."""
