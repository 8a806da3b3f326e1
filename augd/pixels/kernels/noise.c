/* Normal noise by counters: each number from 16 bits of Philox4x32-10, by a table of quantiles.
 *
 * Blocks are made LANES at a time, in plain loops that become vectors. Of their words, all first ones
 * come first, then all second ones, and so on; each word is two numbers, of its low half and its high
 * one. Block b of a key and a stream has the counter (key, b, stream): see augd/pixels/noise.py.
 */
#include "program.h"

#include <math.h>

enum { ROUNDS = 10, WORDS = 4, LANES = 32, NUMBERS_AT_ONCE = LANES * WORDS * 2 };
/* Standard deviations are in steps of 1/256, quantiles of 1/4096. */
enum { STD_BITS = 8, QUANTILE_BITS = 12, BITS = STD_BITS + QUANTILE_BITS, HALF = 1 << (BITS - 1) };

static const uint32_t NOISE_KEY[2] = {0x03707344, 0x13198A2E};
/* Source: Salmon et al. 2011, Random123. */
static const uint32_t MULTIPLIERS[2] = {0xD2511F53, 0xCD9E8D57}, WEYL[2] = {0x9E3779B9, 0xBB67AE85};

/* The words of the blocks from `first` on. */
static inline __attribute__((always_inline)) void draw_words(const AugdNoise *noise, uint32_t first,
                                                             uint32_t c[WORDS][LANES]) {
    uint32_t key[2] = {NOISE_KEY[0], NOISE_KEY[1]};
    for (uint32_t lane = 0; lane < LANES; lane++) {
        c[0][lane] = noise->key[0];
        c[1][lane] = noise->key[1];
        c[2][lane] = first + lane;
        c[3][lane] = noise->stream;
    }
    for (int number = 0; number < ROUNDS; number++) {
        for (int lane = 0; lane < LANES; lane++) {
            const uint64_t product_0 = (uint64_t)c[0][lane] * MULTIPLIERS[0];
            const uint64_t product_2 = (uint64_t)c[2][lane] * MULTIPLIERS[1];
            c[0][lane] = (uint32_t)(product_2 >> 32) ^ c[1][lane] ^ key[0];
            c[1][lane] = (uint32_t)product_2;
            c[2][lane] = (uint32_t)(product_0 >> 32) ^ c[3][lane] ^ key[1];
            c[3][lane] = (uint32_t)product_0;
        }
        key[0] += WEYL[0];
        key[1] += WEYL[1];
    }
}

/* The numbers of the blocks from `first` on, in 1/4096. */
static inline __attribute__((always_inline)) void draw_numbers(const AugdNoise *noise, uint32_t first,
                                                               int16_t numbers[NUMBERS_AT_ONCE]) {
    uint32_t words[WORDS][LANES];
    draw_words(noise, first, words);
    for (int word = 0; word < WORDS; word++)
        for (int lane = 0; lane < LANES; lane++) {
            numbers[2 * (word * LANES + lane)] = noise->normals[words[word][lane] & UINT16_MAX];
            numbers[2 * (word * LANES + lane) + 1] = noise->normals[words[word][lane] >> 16];
        }
}

static inline uint8_t to_level(int32_t steps) {
    const int16_t level = (int16_t)((steps + HALF) >> BITS); /* -1125 to 1380 */
    return (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
}

static inline __attribute__((always_inline)) void add_to_all(AugdRow row, int32_t scale,
                                                             const AugdNoise *noise) {
    int16_t numbers[NUMBERS_AT_ONCE];
    const size_t count = (size_t)row.width * (size_t)row.height * AUGD_CHANNELS;
    uint32_t block = 0;
    for (size_t done = 0; done < count; done += NUMBERS_AT_ONCE, block += LANES) {
        const size_t left = count - done, end = left < NUMBERS_AT_ONCE ? left : NUMBERS_AT_ONCE;
        uint8_t *const bytes = row.pixels + done;
        draw_numbers(noise, block, numbers);
        for (size_t at = 0; at < end; at++)
            bytes[at] = to_level((bytes[at] << BITS) + numbers[at] * scale);
    }
}

typedef struct {
    uint8_t *first;
    ptrdiff_t stride;
    int width, height;
} Box;

static inline __attribute__((always_inline)) void fill_all(Box box, const int32_t middle[3],
                                                           const int32_t scale[3],
                                                           const AugdNoise *noise) {
    int16_t numbers[NUMBERS_AT_ONCE];
    uint32_t block = 0;
    int used = NUMBERS_AT_ONCE;
    for (int y = 0; y < box.height; y++) {
        uint8_t *out = box.first + y * box.stride;
        for (int x = 0; x < box.width; x++)
            for (int of = 0; of < AUGD_CHANNELS; of++, out++, used++) {
                if (used == NUMBERS_AT_ONCE) {
                    draw_numbers(noise, block, numbers);
                    block += LANES;
                    used = 0;
                }
                *out = to_level(middle[of] + numbers[used] * scale[of]);
            }
    }
}

#if AUGD_HAS_AVX2_CODE
AUGD_AVX2 static void add_by_avx2(AugdRow row, int32_t scale, const AugdNoise *noise) {
    add_to_all(row, scale, noise);
}

AUGD_AVX2 static void fill_by_avx2(Box box, const int32_t middle[3], const int32_t scale[3],
                                   const AugdNoise *noise) {
    fill_all(box, middle, scale, noise);
}
#endif

static int32_t in_steps(double std) { return (int32_t)nearbyint(std * (1 << STD_BITS)); }

void augd_add_noise(AugdRow row, double std, AugdNoise noise) {
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        add_by_avx2(row, in_steps(std), &noise);
        return;
    }
#endif
    add_to_all(row, in_steps(std), &noise);
}

void augd_fill_noise(uint8_t *first, ptrdiff_t stride, int width, int height, const double mean[3],
                     const double std[3], AugdNoise noise) {
    const Box box = {first, stride, width, height};
    int32_t middle[AUGD_CHANNELS], scale[AUGD_CHANNELS];
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        middle[of] = (int32_t)nearbyint(mean[of] * (1 << BITS));
        scale[of] = in_steps(std[of]);
    }
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        fill_by_avx2(box, middle, scale, &noise);
        return;
    }
#endif
    fill_all(box, middle, scale, &noise);
}
