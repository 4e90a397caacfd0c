"""Fused kernels: compile and cache (`compiler`), launch (`cpu`), choose (`dispatch`)."""
