"""Recipes: parsing, checks across ops, presets, and the catalogue of known ops."""
