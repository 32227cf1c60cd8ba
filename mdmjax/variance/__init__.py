"""The variance of training: its parts, and the laws that reduce it."""
