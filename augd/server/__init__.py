"""The five programs that augd serve and augd produce start, and what supervises them."""
