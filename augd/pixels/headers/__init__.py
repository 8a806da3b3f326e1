"""Headers of image files: format, size, orientation, where decoding may stop. Decodes nothing."""
