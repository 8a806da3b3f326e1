"""The program that `augd doctor` asks whether CUDA pins shared memory here; prints one word."""

from .cuda_feed import try_pinning

if __name__ == "__main__":
    print(try_pinning())
