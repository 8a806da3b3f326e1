"""Evaluation of a trained network: predictions, metrics, inspection, charts."""
