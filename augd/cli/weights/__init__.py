"""How published weights preprocess images: read from torchvision and timm, written as recipes."""
