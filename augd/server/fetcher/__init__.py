"""The fetcher: reads ranges of objects in stores for confined producers."""
