"""The same updates in eager PyTorch, as published programs do them, to measure against."""
