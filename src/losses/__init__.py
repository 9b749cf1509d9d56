"""Training losses: pure functions of tensors that return named terms, whose weighted sum is minimized."""
