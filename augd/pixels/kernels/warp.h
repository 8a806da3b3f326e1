/* What warp.c and warp_cubic.c share: places and fills. */
#ifndef AUGD_WARP_H
#define AUGD_WARP_H

#include "kernels.h"

enum {
    PLACE_BITS = 8,
    STEPS = 1 << PLACE_BITS, /* of a place, per pixel */
};

/* The pixel that stands for place `at` of `size`; -1 for the fill's value. */
static inline int bring_back(int at, int size, Fill fill) {
    if ((unsigned)at < (unsigned)size) return at;
    switch (fill) {
    case AUGD_NEAREST: return at < 0 ? 0 : size - 1;
    case AUGD_REFLECT:
        at = at < 0 ? -1 - at : at;
        if (at >= 2 * size) at %= 2 * size;
        return at < size ? at : 2 * size - 1 - at;
    case AUGD_WRAP: at %= size; return at < 0 ? at + size : at;
    default: return -1;
    }
}

static inline bool is_outside(const Warp *warp, int32_t place_x, int32_t place_y) {
    const int(*limits)[2] = warp->limits;
    return place_x < limits[0][0] || place_x >= limits[0][1] || place_y < limits[1][0] ||
           place_y >= limits[1][1];
}

/* warp_cubic.c: make `count` pixels of a line, at these places, of 4x4 taps. There are places up to a
 * multiple of four. */
void augd_blend_cubics(uint8_t *out, const Image *source, const Warp *warp, const int32_t *x,
                       const int32_t *y, int count);

#endif
