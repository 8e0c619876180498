"""What is known about operations: one file per kind. Importing this package fills the table of handlers."""

from sfumato.training.engine.layers import attention, conv, embedding, linear, norm, pool, raw

__all__ = ["attention", "conv", "embedding", "linear", "norm", "pool", "raw"]
