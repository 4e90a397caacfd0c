"""The hand-written part of kernels: C++ headers in `cpp`, Triton functions in `triton`."""
