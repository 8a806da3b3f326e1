/* The colour pass: one 3x4 matrix on (R, G, B, 1), in whole numbers of 1/1024, halves up; and the sums
 * of the channels, from which contrast makes its pivot.
 *
 * The arithmetic is that of OpenCV's `transform` of bytes (matmul.simd.hpp), which does this without
 * the kernels, with equal bytes.
 */
#include "kernels.h"

#include <math.h>
#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum { STEP_BITS = 10, HALF_STEP = 1 << (STEP_BITS - 1) };

/* As in augd/pixels/colour_matrix.py, whose arithmetic is repeated here to the last bit. */
static const double LARGEST_COEFFICIENT = 31.0, LARGEST_OFFSET = 8000.0, MIDDLE = 127.5;

static inline uint8_t to_byte(int32_t steps) {
    int32_t level = steps >> STEP_BITS;
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

static void recolour_portably(uint8_t *pixels, size_t num_pixels, const int16_t c[3][3],
                          const int32_t offsets[3]) {
    for (uint8_t *end = pixels + num_pixels * AUGD_CHANNELS; pixels < end; pixels += AUGD_CHANNELS) {
        int32_t r = pixels[0], g = pixels[1], b = pixels[2];
        for (int to = 0; to < AUGD_CHANNELS; to++)
            pixels[to] = to_byte(c[to][0] * r + c[to][1] * g + c[to][2] * b + offsets[to] + HALF_STEP);
    }
}

#if AUGD_HAS_AVX2_CODE

enum { PIXELS_PER_TURN = 8, LANE_BYTES = 12, TURN_BYTES = 2 * LANE_BYTES, READ_BYTES = 28 };

AUGD_AVX2 static inline __m256i read_turn(const uint8_t *at) {
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
        _mm_loadu_si128((const __m128i *)(at + LANE_BYTES)), 1);
}

/* Eight pixels: twelve bytes in each lane, spread to pairs (R, G) and (B, 0) of 16 bits. */
AUGD_AVX2 static size_t recolour_by_avx2(uint8_t *pixels, size_t num_pixels, const int16_t c[3][3],
                                     const int32_t offsets[3]) {
    const __m256i red_green = _mm256_setr_epi8(
        0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1,
        0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1);
    const __m256i blue = _mm256_setr_epi8(
        2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1,
        2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1);
    const __m256i interleave = _mm256_setr_epi8(
        0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1,
        0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1);
    __m256i by_red_green[3], by_blue[3], offset[3];
    for (int to = 0; to < AUGD_CHANNELS; to++) {
        by_red_green[to] = _mm256_set1_epi32(
            (int32_t)((uint32_t)(uint16_t)c[to][1] << 16 | (uint16_t)c[to][0]));
        by_blue[to] = _mm256_set1_epi32((uint16_t)c[to][2]);
        offset[to] = _mm256_set1_epi32(offsets[to] + HALF_STEP);
    }
    const size_t num_bytes = num_pixels * AUGD_CHANNELS;
    const size_t turns = num_bytes < READ_BYTES ? 0 : (num_bytes - READ_BYTES) / TURN_BYTES + 1;
    if (!turns) return 0;
    /* Each turn reads and spoils four bytes beyond its own. The next one has been read by then, and
     * writes them; the last ones are put back. */
    uint8_t *const end = pixels + turns * TURN_BYTES;
    int32_t beyond;
    memcpy(&beyond, end, sizeof beyond);
    __m256i next = read_turn(pixels);
    for (uint8_t *at = pixels; at < end; at += TURN_BYTES) {
        const __m256i source = next;
        if (at + TURN_BYTES < end) next = read_turn(at + TURN_BYTES);
        __m256i rg = _mm256_shuffle_epi8(source, red_green);
        __m256i b = _mm256_shuffle_epi8(source, blue);
        __m256i level[3];
        for (int to = 0; to < AUGD_CHANNELS; to++) {
            __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(rg, by_red_green[to]),
                                           _mm256_madd_epi16(b, by_blue[to]));
            level[to] = _mm256_srai_epi32(_mm256_add_epi32(sum, offset[to]), STEP_BITS);
        }
        __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(level[0], level[1]),
                                            _mm256_packs_epi32(level[2], level[2]));
        bytes = _mm256_shuffle_epi8(bytes, interleave);
        _mm_storeu_si128((__m128i *)at, _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((__m128i *)(at + LANE_BYTES), _mm256_extracti128_si256(bytes, 1));
    }
    memcpy(end, &beyond, sizeof beyond);
    return turns * PIXELS_PER_TURN;
}

#endif

/* Round a row of the matrix; what its coefficients lose is given back at a middle grey. Halves go to
 * even, as Python's round has it. */
static bool round_row(const double row[4], int16_t coefficients[3], int32_t *offset) {
    double lost = 0.0;
    for (int from = 0; from < AUGD_CHANNELS; from++) {
        if (!(fabs(row[from]) <= LARGEST_COEFFICIENT)) return false;
        const double steps = row[from] * (1 << STEP_BITS), whole = nearbyint(steps);
        coefficients[from] = (int16_t)whole;
        lost += steps - whole;
    }
    if (!(fabs(row[3]) <= LARGEST_OFFSET)) return false;
    *offset = (int32_t)nearbyint(row[3] * (1 << STEP_BITS) + lost * MIDDLE);
    return true;
}

/* A matrix that only shifts does so by whole numbers, because the pixels are whole. */
static bool is_shift(const double matrix[3][4]) {
    for (int to = 0; to < AUGD_CHANNELS; to++)
        for (int from = 0; from < AUGD_CHANNELS; from++)
            if (matrix[to][from] != (to == from ? 1.0 : 0.0)) return false;
    return true;
}

bool augd_apply_colour(uint8_t *pixels, size_t num_pixels, const double matrix[3][4]) {
    const bool has_shift_only = is_shift(matrix);
    int16_t coefficients[3][3];
    int32_t offsets[3];
    for (int to = 0; to < AUGD_CHANNELS; to++) {
        double row[4] = {matrix[to][0], matrix[to][1], matrix[to][2], matrix[to][3]};
        if (has_shift_only) row[3] = fmax(-255.0, fmin(255.0, floor(row[3] + 0.5)));
        if (!round_row(row, coefficients[to], &offsets[to])) return false;
    }
    size_t done = 0;
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) done = recolour_by_avx2(pixels, num_pixels, coefficients, offsets);
#endif
    recolour_portably(pixels + done * AUGD_CHANNELS, num_pixels - done, coefficients, offsets);
    return true;
}

#if AUGD_HAS_AVX2_CODE

enum {
    VECTOR_BYTES = 32,
    LANES = VECTOR_BYTES / 2,
    PARTS = AUGD_CHANNELS, /* three vectors hold 32 pixels */
    TURNS_AT_MOST = 257,   /* of adding a byte to 16 bits */
};

/* Bytes at even and at odd places are added up by themselves, and belong to channels only at the end:
 * place p of part v is channel (32 v + p) % 3. */
AUGD_AVX2 static void sum_turns(const uint8_t *pixels, size_t turns, uint64_t sums[3]) {
    const __m256i even = _mm256_set1_epi16(0xFF);
    __m256i totals[PARTS][2];
    for (int part = 0; part < PARTS; part++) totals[part][0] = totals[part][1] = _mm256_setzero_si256();
    for (; turns; turns--)
        for (int part = 0; part < PARTS; part++, pixels += VECTOR_BYTES) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)pixels);
            totals[part][0] = _mm256_add_epi16(totals[part][0], _mm256_and_si256(bytes, even));
            totals[part][1] = _mm256_add_epi16(totals[part][1], _mm256_srli_epi16(bytes, 8));
        }
    for (int part = 0; part < PARTS; part++)
        for (int odd = 0; odd < 2; odd++) {
            uint16_t lanes[LANES];
            _mm256_storeu_si256((__m256i *)lanes, totals[part][odd]);
            for (int lane = 0; lane < LANES; lane++)
                sums[(part * VECTOR_BYTES + 2 * lane + odd) % AUGD_CHANNELS] += lanes[lane];
        }
}

AUGD_AVX2 static size_t sum_by_avx2(const uint8_t *pixels, size_t num_pixels, uint64_t sums[3]) {
    const size_t all_turns = num_pixels / VECTOR_BYTES;
    for (size_t done = 0; done < all_turns; done += TURNS_AT_MOST) {
        const size_t left = all_turns - done;
        sum_turns(pixels + done * PARTS * VECTOR_BYTES, left < TURNS_AT_MOST ? left : TURNS_AT_MOST,
                  sums);
    }
    return all_turns * VECTOR_BYTES;
}

#endif

void augd_sum(const uint8_t *pixels, size_t num_pixels, uint64_t sums[3]) {
    size_t done = 0;
    memset(sums, 0, AUGD_CHANNELS * sizeof *sums);
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) done = sum_by_avx2(pixels, num_pixels, sums);
#endif
    for (; done < num_pixels; done++)
        for (int of = 0; of < AUGD_CHANNELS; of++) sums[of] += pixels[done * AUGD_CHANNELS + of];
}

void augd_add_mean(const uint8_t *pixels, size_t num_pixels, const double pivot[3][3],
                   double matrix[3][4]) {
    uint64_t sums[AUGD_CHANNELS];
    double mean[AUGD_CHANNELS];
    augd_sum(pixels, num_pixels, sums);
    for (int of = 0; of < AUGD_CHANNELS; of++) mean[of] = (double)sums[of] / (double)num_pixels;
    for (int to = 0; to < AUGD_CHANNELS; to++)
        matrix[to][3] += (pivot[to][0] * mean[0] + pivot[to][1] * mean[1]) + pivot[to][2] * mean[2];
}
