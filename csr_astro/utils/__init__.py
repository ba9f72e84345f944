"""Helpers without astronomy: files, warnings, optional packages, robust statistics."""
