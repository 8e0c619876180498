"""Sequences of what people do to a governed project, on real parts, with a reference beside them."""
