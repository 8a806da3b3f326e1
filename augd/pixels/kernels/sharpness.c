/* Sharpness: a blend of a row with its smoothed self. Below 1 it blurs, above 1 it sharpens.
 *
 * Source: Pillow, ImageEnhance.Sharpness and ImageFilter.SMOOTH, within one level: what is smoothed has
 * equal bytes, and the blend is rounded, not cut.
 */
#include "program.h"

#include <math.h>
#include <string.h>

/* The middle weighs 5, its eight neighbours 1. A sum of up to 13 * 255 is divided by 13 by a product:
 * 5042 / 65536 is 1 / 13 plus 9e-7, too little to reach the next whole number. */
enum { MIDDLE_WEIGHT = 5, WEIGHT_SUM = 13, RECIPROCAL = 5042, RECIPROCAL_BITS = 16 };
enum { FACTOR_BITS = 16, HALF = 1 << (FACTOR_BITS - 1) };

/* `count` bytes of a line, in a plain loop that becomes vectors. `corner` is left of and above the first
 * one: places from there on are never negative, which compilers need. */
static inline __attribute__((always_inline)) void sharpen_line(uint8_t *restrict out,
                                                               const uint8_t *restrict corner,
                                                               size_t stride, size_t count,
                                                               int32_t factor) {
    enum { MIDDLE = AUGD_CHANNELS, RIGHT = 2 * AUGD_CHANNELS };
    const uint8_t *restrict above = corner, *restrict at = corner + stride;
    const uint8_t *restrict below = at + stride;
    for (size_t x = 0; x < count; x++) {
        const uint16_t sum = (uint16_t)(above[x] + above[x + MIDDLE] + above[x + RIGHT] + at[x] +
                                        MIDDLE_WEIGHT * at[x + MIDDLE] + at[x + RIGHT] + below[x] +
                                        below[x + MIDDLE] + below[x + RIGHT] + WEIGHT_SUM / 2);
        const int16_t smooth = (int16_t)((uint32_t)sum * RECIPROCAL >> RECIPROCAL_BITS);
        const int16_t apart = (int16_t)(at[x + MIDDLE] - smooth);
        const int32_t level = smooth + ((factor * apart + HALF) >> FACTOR_BITS);
        out[x] = (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
    }
}

static inline __attribute__((always_inline)) void sharpen_lines(AugdRow row, int32_t factor,
                                                                const uint8_t *copy) {
    const size_t stride = (size_t)row.width * AUGD_CHANNELS;
    if (row.width <= 2) return;
    for (int y = 1; y < row.height - 1; y++)
        sharpen_line(row.pixels + (size_t)y * stride + AUGD_CHANNELS, copy + (size_t)(y - 1) * stride,
                     stride, stride - 2 * AUGD_CHANNELS, factor);
}

#if AUGD_HAS_AVX2_CODE
AUGD_AVX2 static void sharpen_by_avx2(AugdRow row, int32_t factor, const uint8_t *copy) {
    sharpen_lines(row, factor, copy);
}
#endif

static void sharpen_portably(AugdRow row, int32_t factor, const uint8_t *copy) {
    sharpen_lines(row, factor, copy);
}

void augd_sharpen(AugdRow row, double factor, uint8_t *copy) {
    const int32_t steps = (int32_t)nearbyint(factor * (1 << FACTOR_BITS));
    memcpy(copy, row.pixels, (size_t)row.width * (size_t)row.height * AUGD_CHANNELS);
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        sharpen_by_avx2(row, steps, copy);
        return;
    }
#endif
    sharpen_portably(row, steps, copy);
}
