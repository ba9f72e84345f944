"""Simulated maps: diffuse emission, point spread functions, injected sources."""
