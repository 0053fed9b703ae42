"""Trials, the only training loop, and the range test."""
