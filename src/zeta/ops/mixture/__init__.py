"""The mixture of softmaxes: its cross-entropy without all logits in memory, and its inference."""
