"""Looking at what was learnt: predictions, metrics, insides, charts."""
