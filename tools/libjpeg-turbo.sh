#!/bin/sh
# Build libjpeg-turbo as a static library that a wheel of augd can carry:
#   tools/libjpeg-turbo.sh PREFIX     then AUGD_LIBJPEG=PREFIX python -m build --wheel
# Needs git, cmake, a C compiler, and nasm for vector instructions. Another place to fetch from:
# LIBJPEG_TURBO_GIT. The commit is checked, wherever it comes from.
set -eu
prefix=${1:?usage: tools/libjpeg-turbo.sh PREFIX}
version=3.1.3
commit=af9c1c268520a29adf98cad5138dafe612b3d318
from=${LIBJPEG_TURBO_GIT:-https://github.com/libjpeg-turbo/libjpeg-turbo.git}

command -v nasm >/dev/null || { command -v dnf >/dev/null && dnf install -y nasm; } \
    || { command -v apk >/dev/null && apk add nasm; } \
    || { echo "libjpeg-turbo.sh: nasm is missing: the library would be several times slower" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git clone --quiet --depth 1 --branch "$version" "$from" "$scratch/source"
found=$(git -C "$scratch/source" rev-parse HEAD)
test "$found" = "$commit" \
    || { echo "libjpeg-turbo.sh: tag $version: expected commit $commit, got $found" >&2; exit 1; }
cmake -S "$scratch/source" -B "$scratch/build" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_INSTALL_PREFIX="$prefix" -DENABLE_SHARED=0 -DWITH_TURBOJPEG=0 -DREQUIRE_SIMD=1 \
    -DCMAKE_POSITION_INDEPENDENT_CODE=1
cmake --build "$scratch/build" --target install -j 2
# What huffman.c plugs itself into; distributions ship it, the library's own install doesn't.
cp "$scratch/source/src/jpegint.h" "$prefix/include/"
