/* Normal noise by counters: each number from 16 bits of Philox4x32-10, by a table of quantiles.
 *
 * Number i of a key and a stream is from half i % 2 (the low one first) of word i / 2 % 4 of the block
 * whose counter is (key, i / 8, stream), as augd/pixels/noise.py has it. Blocks are made many at a
 * time, in plain loops that become vectors.
 */
#include "program.h"

#include <math.h>

enum { ROUNDS = 10, WORDS = 4, LANES = 32, NUMBERS_OF_BLOCK = 2 * WORDS };
enum { NUMBERS_AT_ONCE = LANES * NUMBERS_OF_BLOCK };
/* Standard deviations are in steps of 1/256, quantiles of 1/4096. */
enum { STD_BITS = 8, QUANTILE_BITS = 12, BITS = STD_BITS + QUANTILE_BITS, HALF = 1 << (BITS - 1) };

static const uint32_t NOISE_KEY[2] = {0x03707344, 0x13198A2E};
/* Source: Salmon et al. 2011, Random123. */
static const uint32_t MULTIPLIERS[2] = {0xD2511F53, 0xCD9E8D57}, WEYL[2] = {0x9E3779B9, 0xBB67AE85};

/* The blocks from `first` on. */
static inline __attribute__((always_inline)) void draw_blocks(const AugdNoise *noise, uint32_t first,
                                                              uint16_t numbers[NUMBERS_AT_ONCE]) {
    uint32_t c[WORDS][LANES], key[2] = {NOISE_KEY[0], NOISE_KEY[1]};
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
    for (int lane = 0; lane < LANES; lane++)
        for (int word = 0; word < WORDS; word++) {
            numbers[lane * NUMBERS_OF_BLOCK + 2 * word] = (uint16_t)c[word][lane];
            numbers[lane * NUMBERS_OF_BLOCK + 2 * word + 1] = (uint16_t)(c[word][lane] >> 16);
        }
}

#if AUGD_HAS_AVX2_CODE
AUGD_AVX2 static void draw_by_avx2(const AugdNoise *noise, uint32_t first,
                                   uint16_t numbers[NUMBERS_AT_ONCE]) {
    draw_blocks(noise, first, numbers);
}
#endif

static void draw(const AugdNoise *noise, uint32_t first, uint16_t numbers[NUMBERS_AT_ONCE]) {
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        draw_by_avx2(noise, first, numbers);
        return;
    }
#endif
    draw_blocks(noise, first, numbers);
}

static inline uint8_t to_level(int32_t steps) {
    const int32_t level = (steps + HALF) >> BITS;
    return (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
}

static int32_t in_steps(double std) { return (int32_t)nearbyint(std * (1 << STD_BITS)); }

void augd_add_noise(AugdRow row, double std, AugdNoise noise) {
    uint16_t numbers[NUMBERS_AT_ONCE];
    const size_t count = (size_t)row.width * (size_t)row.height * AUGD_CHANNELS;
    const int32_t scale = in_steps(std);
    uint32_t block = 0;
    for (size_t done = 0; done < count; done += NUMBERS_AT_ONCE, block += LANES) {
        const size_t left = count - done, end = left < NUMBERS_AT_ONCE ? left : NUMBERS_AT_ONCE;
        uint8_t *const bytes = row.pixels + done;
        draw(&noise, block, numbers);
        for (size_t at = 0; at < end; at++)
            bytes[at] = to_level((bytes[at] << BITS) + noise.normals[numbers[at]] * scale);
    }
}

void augd_fill_noise(uint8_t *first, ptrdiff_t stride, int width, int height, const double mean[3],
                     const double std[3], AugdNoise noise) {
    uint16_t numbers[NUMBERS_AT_ONCE];
    int32_t middle[AUGD_CHANNELS], scale[AUGD_CHANNELS];
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        middle[of] = (int32_t)nearbyint(mean[of] * (1 << BITS));
        scale[of] = in_steps(std[of]);
    }
    uint32_t block = 0;
    int used = NUMBERS_AT_ONCE;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width * AUGD_CHANNELS; x++) {
            if (used == NUMBERS_AT_ONCE) {
                draw(&noise, block, numbers);
                block += LANES;
                used = 0;
            }
            const int of = x % AUGD_CHANNELS;
            first[y * stride + x] = to_level(middle[of] + noise.normals[numbers[used++]] * scale[of]);
        }
}
