"""Where pixels go: frames of rows, affine matrices, regions to decode and their scale."""
