/* The matrix path's bicubic samples: every pixel of a row is blended of 4x4 of the region.
 *
 * As in resize.c: columns first, each product rounded to 7 bits behind the point and added up in 16 bits as
 * a level less 128; then the line of four, and the pixel alone is clipped. Weights have 14 bits and sum to
 * exactly 1. augd/pixels/warp_cubic.py does the same without kernels, number for number.
 *
 * Vectors make four pixels together, one in each lane. Where the taps of all four lie inside the region they
 * are read where they are; else they are moved inside by the fill, and put side by side.
 *
 * Source: Keys 1981, "Cubic convolution interpolation", with a = -1/2.
 */
#include "warp.h"

#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum {
    NUM_TAPS = 4,
    WEIGHT_BITS = 14,
    BETWEEN_BITS = 7,
    DOWN_SHIFT = WEIGHT_BITS - BETWEEN_BITS,
    ACROSS_SHIFT = WEIGHT_BITS + BETWEEN_BITS,
    MIDDLE = 128,
    START = (1 << (ACROSS_SHIFT - 1)) + (MIDDLE << ACROSS_SHIFT),
    LINE_BYTES = 16, /* of four pixels, and four that vectors read beyond them */
};

/* The weights of the taps at -1, 0, 1 and 2 px from a place, by its fraction; as vectors want them, each
 * twice, and two together. */
typedef struct {
    bool is_made;
    int16_t of[STEPS][NUM_TAPS];
    int32_t down[STEPS][NUM_TAPS], across[STEPS][NUM_TAPS / 2];
} Weights;

static int32_t pair_of(int16_t low, int16_t high) {
    return (int32_t)((uint32_t)(uint16_t)high << 16 | (uint16_t)low);
}

/* In whole numbers: twice each weight, times STEPS^3. What rounding leaves goes to the nearest tap, so that a
 * place and its mirror image have the same weights. */
static void make_weights(Weights *weights) {
    enum { SHIFT = 3 * PLACE_BITS + 1 - WEIGHT_BITS };
    for (int32_t at = 0; at < STEPS; at++) {
        const int32_t square = at * at, cube = square * at;
        const int32_t twice[NUM_TAPS] = {
            -cube + 2 * square * STEPS - at * STEPS * STEPS,
            3 * cube - 5 * square * STEPS + 2 * STEPS * STEPS * STEPS,
            -3 * cube + 4 * square * STEPS + at * STEPS * STEPS,
            cube - square * STEPS,
        };
        int16_t *of = weights->of[at];
        int left = 1 << WEIGHT_BITS;
        for (int tap = 0; tap < NUM_TAPS; tap++) {
            of[tap] = (int16_t)((twice[tap] + (1 << (SHIFT - 1))) >> SHIFT);
            left -= of[tap];
        }
        of[at < STEPS / 2 ? 1 : 2] += (int16_t)left;
        for (int tap = 0; tap < NUM_TAPS; tap++) weights->down[at][tap] = pair_of(of[tap], of[tap]);
        weights->across[at][0] = pair_of(of[0], of[1]);
        weights->across[at][1] = pair_of(of[2], of[3]);
    }
    weights->is_made = true;
}

/* Put the taps of a pixel side by side, moved inside by the fill. */
static void gather(uint8_t taps[NUM_TAPS][LINE_BYTES], const Image *source, const Warp *warp, int x,
                   int y) {
    int columns[NUM_TAPS];
    for (int tap = 0; tap < NUM_TAPS; tap++)
        columns[tap] = bring_back(x - 1 + tap, source->width, warp->fill);
    for (int line = 0; line < NUM_TAPS; line++) {
        const int row = bring_back(y - 1 + line, source->height, warp->fill);
        const uint8_t *from = row < 0 ? NULL : source->data + row * source->stride;
        for (int tap = 0; tap < NUM_TAPS; tap++)
            memcpy(taps[line] + tap * AUGD_CHANNELS,
                   from && columns[tap] >= 0 ? from + columns[tap] * AUGD_CHANNELS
                                             : warp->fill_value,
                   AUGD_CHANNELS);
    }
}

static void blend_pixel(uint8_t *out, uint8_t taps[NUM_TAPS][LINE_BYTES], const int16_t *across,
                        const int16_t *down) {
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        int32_t sum = START;
        for (int tap = 0; tap < NUM_TAPS; tap++) {
            int32_t column = 0;
            for (int line = 0; line < NUM_TAPS; line++)
                column += (down[line] * (taps[line][tap * AUGD_CHANNELS + of] - MIDDLE) +
                           (1 << (DOWN_SHIFT - 1))) >> DOWN_SHIFT;
            sum += across[tap] * column;
        }
        const int32_t level = sum >> ACROSS_SHIFT;
        out[of] = (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
    }
}

static void blend_portably(uint8_t *out, const Image *source, const Warp *warp,
                           const Weights *weights, const int32_t *x, const int32_t *y, int count) {
    uint8_t taps[NUM_TAPS][LINE_BYTES];
    for (int number = 0; number < count; number++, out += AUGD_CHANNELS) {
        if (is_outside(warp, x[number], y[number])) {
            memcpy(out, warp->fill_value, AUGD_CHANNELS);
            continue;
        }
        gather(taps, source, warp, x[number] >> PLACE_BITS, y[number] >> PLACE_BITS);
        blend_pixel(out, taps, weights->of[x[number] & (STEPS - 1)],
                    weights->of[y[number] & (STEPS - 1)]);
    }
}

#if AUGD_HAS_AVX2_CODE

enum { GROUP = 4, GROUP_BYTES = GROUP * AUGD_CHANNELS, READ_PIXELS = 6 /* by LINE_BYTES */ };

AUGD_AVX2 static inline __m256i for_both(int32_t first, int32_t second) {
    return _mm256_blend_epi32(_mm256_set1_epi32(first), _mm256_set1_epi32(second), 0xF0);
}

/* Two pixels, one in each lane, to levels in 32 bits: R G B 0. */
AUGD_AVX2 static inline __m256i blend_two(const uint8_t *first, const uint8_t *second,
                                          ptrdiff_t stride, const Weights *weights,
                                          const int32_t *x, const int32_t *y) {
    const __m256i left_and_right = _mm256_setr_epi8(
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1,
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
    const __m256i middle = _mm256_set1_epi8((char)MIDDLE), zero = _mm256_setzero_si256();
    const int32_t *down = weights->down[y[0] & (STEPS - 1)];
    const int32_t *other_down = weights->down[y[1] & (STEPS - 1)];
    const int32_t *across = weights->across[x[0] & (STEPS - 1)];
    const int32_t *other_across = weights->across[x[1] & (STEPS - 1)];
    __m256i eight = zero, rest = zero; /* of twelve samples */
    for (int line = 0; line < NUM_TAPS; line++, first += stride, second += stride) {
        const __m256i taps = _mm256_xor_si256(
            middle,
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)first)),
                                    _mm_loadu_si128((const __m128i *)second), 1));
        const __m256i weight = for_both(down[line], other_down[line]);
        eight = _mm256_add_epi16(eight,
                                 _mm256_mulhrs_epi16(_mm256_unpacklo_epi8(zero, taps), weight));
        rest = _mm256_add_epi16(rest,
                                _mm256_mulhrs_epi16(_mm256_unpackhi_epi8(zero, taps), weight));
    }
    const __m256i six = _mm256_alignr_epi8(rest, eight, 2 * AUGD_CHANNELS * sizeof(int16_t));
    const __m256i sum = _mm256_add_epi32(
        _mm256_madd_epi16(_mm256_shuffle_epi8(eight, left_and_right),
                          for_both(across[0], other_across[0])),
        _mm256_madd_epi16(_mm256_shuffle_epi8(six, left_and_right),
                          for_both(across[1], other_across[1])));
    return _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(START)), ACROSS_SHIFT);
}

/* Four pixels whose taps begin at these addresses. Writes LINE_BYTES for GROUP_BYTES. */
AUGD_AVX2 static inline void blend_group(uint8_t *out, const uint8_t *const *taps, ptrdiff_t stride,
                                         const Weights *weights, const int32_t *x,
                                         const int32_t *y) {
    const __m128i drop_fourth =
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const __m256i words =
        _mm256_packs_epi32(blend_two(taps[0], taps[1], stride, weights, x, y),
                           blend_two(taps[2], taps[3], stride, weights, x + 2, y + 2));
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const __m128i pixels =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128((__m128i *)out, _mm_shuffle_epi8(pixels, drop_fourth));
}

/* Find where the taps of four pixels begin; false when some lie outside the region. */
AUGD_AVX2 static inline bool find_taps(const uint8_t **taps, const Image *source, const int32_t *x,
                                       const int32_t *y) {
    const __m128i one = _mm_set1_epi32(1);
    const __m128i left =
        _mm_sub_epi32(_mm_srai_epi32(_mm_loadu_si128((const __m128i *)x), PLACE_BITS), one);
    const __m128i top =
        _mm_sub_epi32(_mm_srai_epi32(_mm_loadu_si128((const __m128i *)y), PLACE_BITS), one);
    /* As unsigned numbers, places before the region are larger than any inside. */
    const __m128i last_left = _mm_set1_epi32(source->width - READ_PIXELS);
    const __m128i last_top = _mm_set1_epi32(source->height - NUM_TAPS);
    const __m128i inside = _mm_and_si128(_mm_cmpeq_epi32(_mm_min_epu32(left, last_left), left),
                                         _mm_cmpeq_epi32(_mm_min_epu32(top, last_top), top));
    if (_mm_movemask_epi8(inside) != UINT16_MAX) return false;
    for (int number = 0; number < GROUP; number++)
        taps[number] = source->data + ((y[number] >> PLACE_BITS) - 1) * source->stride +
                       (ptrdiff_t)((x[number] >> PLACE_BITS) - 1) * AUGD_CHANNELS;
    return true;
}

AUGD_AVX2 static void blend_outside(uint8_t *out, const Image *source, const Warp *warp,
                                    const Weights *weights, const int32_t *x, const int32_t *y) {
    uint8_t apart[GROUP][NUM_TAPS][LINE_BYTES] = {{{0}}};
    const uint8_t *const taps[GROUP] = {apart[0][0], apart[1][0], apart[2][0], apart[3][0]};
    for (int number = 0; number < GROUP; number++)
        if (!is_outside(warp, x[number], y[number]))
            gather(apart[number], source, warp, x[number] >> PLACE_BITS, y[number] >> PLACE_BITS);
    blend_group(out, taps, LINE_BYTES, weights, x, y);
    for (int number = 0; number < GROUP; number++)
        if (is_outside(warp, x[number], y[number]))
            memcpy(out + number * AUGD_CHANNELS, warp->fill_value, AUGD_CHANNELS);
}

/* Whether a place whose taps are all in the region may be outside the limits. No plan has such. */
static bool cuts(const Warp *warp, const Image *source) {
    const int(*limits)[2] = warp->limits;
    return limits[0][0] > STEPS || limits[0][1] < (source->width - 2) * STEPS ||
           limits[1][0] > STEPS || limits[1][1] < (source->height - 2) * STEPS;
}

/* Places are padded to whole groups. */
AUGD_AVX2 static void blend_by_avx2(uint8_t *out, const Image *source, const Warp *warp,
                                    const Weights *weights, const int32_t *x, const int32_t *y,
                                    int count) {
    const bool fits = source->width >= READ_PIXELS && source->height >= NUM_TAPS &&
                      !cuts(warp, source);
    for (int at = 0; at < count; at += GROUP) {
        const uint8_t *taps[GROUP];
        uint8_t *to = out + at * AUGD_CHANNELS, last[LINE_BYTES];
        const int num_left = count - at;
        uint8_t *group = num_left * AUGD_CHANNELS >= LINE_BYTES ? to : last;
        if (fits && find_taps(taps, source, x + at, y + at))
            blend_group(group, taps, source->stride, weights, x + at, y + at);
        else
            blend_outside(group, source, warp, weights, x + at, y + at);
        if (group == last)
            memcpy(to, last, (size_t)(num_left < GROUP ? num_left : GROUP) * AUGD_CHANNELS);
    }
}

#endif

void augd_blend_cubics(uint8_t *out, const Image *source, const Warp *warp, const int32_t *x,
                       const int32_t *y, int count) {
    static _Thread_local Weights kept;
    Weights *weights = &kept;
    if (!weights->is_made) make_weights(weights);
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        blend_by_avx2(out, source, warp, weights, x, y, count);
        return;
    }
#endif
    blend_portably(out, source, warp, weights, x, y, count);
}
