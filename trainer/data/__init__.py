"""Batches on the device: slots to tensors, and copies that overlap training."""
