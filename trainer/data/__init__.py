"""Batches on the device: slots to tensors, copies that overlap training, features that are
stored."""
