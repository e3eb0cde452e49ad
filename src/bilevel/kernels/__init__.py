"""Compiled kernels: each an implementation of some prox, or of some T, admitted by the test that
compares it with its torch reference.

Nothing here is imported by `import bilevel`: a term asks for its kernel when it is first used.
"""
