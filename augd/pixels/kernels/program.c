/* Runs a row's program: its steps, one after another, in place. Neighbouring tables compose to one. */
#include "program.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* As augd/plan/program.py numbers them. */
typedef enum {
    NONE,
    MATRIX,
    TABLE,
    POSTERIZE,
    SOLARIZE,
    SOLARIZE_ADD,
    INVERT,
    EQUALIZE,
    AUTOCONTRAST,
    SHARPNESS,
    BLUR,
    NOISE,
    JPEG,
    BOX,
} Kind;

static const double SIGMAS_KEPT = 3.0, STD_MAX = 255.0, WORD_MAX = UINT32_MAX;

/* memory beside the row */

static size_t copy_bytes(int width, int height) {
    /* At least what a JPEG of 4:2:0 takes at most, as libjpeg-turbo's tjBufSize() has it. */
    const size_t across = ((size_t)width + 15) / 16 * 16, down = ((size_t)height + 15) / 16 * 16;
    return across * down * AUGD_CHANNELS + 2048;
}

size_t augd_scratch_bytes(int width, int height) {
    const size_t pixels = (size_t)width + 2 * (AUGD_RADIUS_MAX + 2);
    return pixels * AUGD_CHANNELS * sizeof(int16_t) + copy_bytes(width, height);
}

AugdScratch augd_divide_scratch(void *memory, int width, int height) {
    const size_t all = augd_scratch_bytes(width, height), copy = copy_bytes(width, height);
    return (AugdScratch){(uint8_t *)memory + (all - copy), copy, memory};
}

/* the values of a step */

/* A whole number from `low` to `high`; false, with a text, for any other. */
static bool take_whole(double value, double low, double high, int *out,
                       char message[AUGD_MESSAGE_BYTES]) {
    if (value >= low && value <= high && floor(value) == value) {
        *out = (int)value;
        return true;
    }
    snprintf(message, AUGD_MESSAGE_BYTES, "expected a whole number from %.0f to %.0f, got %g", low,
             high, value);
    return false;
}

static bool is_within(double value, double low, double high, char message[AUGD_MESSAGE_BYTES]) {
    if (value >= low && value <= high) return true;
    snprintf(message, AUGD_MESSAGE_BYTES, "expected a number from %g to %g, got %g", low, high, value);
    return false;
}

/* tables */

static bool is_table(int kind) { return kind >= TABLE && kind <= INVERT; }

static inline uint8_t clip(int level) {
    return (uint8_t)(level < 0 ? 0 : level >= AUGD_LEVELS ? AUGD_LEVELS - 1 : level);
}

static void write_solarized(double threshold, uint8_t table[AUGD_LEVELS]) {
    for (int x = 0; x < AUGD_LEVELS; x++)
        table[x] = (uint8_t)(x < threshold ? x : AUGD_LEVELS - 1 - x);
}

static bool write_table(const AugdProgram *program, int step, uint8_t table[AUGD_LEVELS],
                        char message[AUGD_MESSAGE_BYTES]) {
    const double *values = program->values + (size_t)step * AUGD_VALUES;
    int first;
    switch ((Kind)program->kinds[step]) {
    case TABLE:
        if (!take_whole(values[0], 0, program->num_tables - 1, &first, message)) return false;
        memcpy(table, program->tables + (size_t)first * AUGD_LEVELS, AUGD_LEVELS);
        return true;
    case POSTERIZE:
        if (!take_whole(values[0], 1, 8, &first, message)) return false;
        for (int x = 0; x < AUGD_LEVELS; x++) table[x] = (uint8_t)(x & ~((1 << (8 - first)) - 1));
        return true;
    case SOLARIZE:
        if (!is_within(values[0], 0, AUGD_LEVELS, message)) return false;
        write_solarized(values[0], table);
        return true;
    case SOLARIZE_ADD:
        if (!take_whole(values[0], -255, 255, &first, message) ||
            !is_within(values[1], 0, AUGD_LEVELS, message))
            return false;
        for (int x = 0; x < AUGD_LEVELS; x++) table[x] = x < values[1] ? clip(x + first) : (uint8_t)x;
        return true;
    default: write_solarized(0, table); return true; /* inverts */
    }
}

/* Look up the tables that stand next to each other from `step` on as one. Returns the step after
 * them, or, with a text, the one that is wrong. */
static int run_tables(AugdRow row, const AugdProgram *program, int step,
                      char message[AUGD_MESSAGE_BYTES]) {
    uint8_t all[AUGD_LEVELS], next[AUGD_LEVELS];
    if (!write_table(program, step, all, message)) return step;
    for (step++; step < program->num_steps && is_table(program->kinds[step]); step++) {
        if (!write_table(program, step, next, message)) return step;
        for (int x = 0; x < AUGD_LEVELS; x++) all[x] = next[all[x]];
    }
    augd_look_up(row, all);
    return step;
}

/* the other steps */

/* False, without a text, where the entries are too large. */
static bool run_matrix(AugdRow row, const AugdProgram *program, const double *values,
                       char message[AUGD_MESSAGE_BYTES]) {
    enum { SHIFTED = 12 };
    const size_t num_pixels = (size_t)row.width * (size_t)row.height;
    int number;
    double matrix[3][4], pivot[3][3];
    if (!take_whole(values[0], 0, program->num_matrices - 1, &number, message)) return false;
    const double *entries = program->matrices + (size_t)number * AUGD_MATRIX_ENTRIES;
    memcpy(matrix, entries, sizeof matrix);
    memcpy(pivot, entries + SHIFTED, sizeof pivot);
    for (int entry = SHIFTED; entry < AUGD_MATRIX_ENTRIES; entry++)
        if (entries[entry] != 0.0) {
            augd_add_mean(row.pixels, num_pixels, pivot, matrix);
            break;
        }
    return augd_apply_colour(row.pixels, num_pixels, matrix);
}

static bool run_blur(AugdRow row, const double *values, const AugdScratch *scratch,
                     char message[AUGD_MESSAGE_BYTES]) {
    int radius;
    if (!is_within(values[0], 1e-3, AUGD_RADIUS_MAX, message) ||
        !take_whole(values[1], 0, AUGD_RADIUS_MAX, &radius, message))
        return false;
    if (!radius && !take_whole(fmax(1.0, ceil(SIGMAS_KEPT * values[0])), 1, AUGD_RADIUS_MAX, &radius, message))
        return false;
    augd_blur(row, values[0], radius, scratch);
    return true;
}

static bool run_noise(AugdRow row, const double *values, const int16_t *normals,
                      char message[AUGD_MESSAGE_BYTES]) {
    if (!is_within(values[0], 0, STD_MAX, message) || !is_within(values[1], 0, WORD_MAX, message) ||
        !is_within(values[2], 0, WORD_MAX, message))
        return false;
    const AugdNoise noise = {{(uint32_t)values[1], (uint32_t)values[2]}, 0, normals};
    augd_add_noise(row, values[0], noise);
    return true;
}

static bool run_sharpness(AugdRow row, double factor, const AugdScratch *scratch,
                          char message[AUGD_MESSAGE_BYTES]) {
    if (!is_within(factor, 0, AUGD_FACTOR_MAX, message)) return false;
    augd_sharpen(row, factor, scratch);
    return true;
}

static bool run_box(AugdRow row, const double *values, char message[AUGD_MESSAGE_BYTES]) {
    enum { GREY = 128 };
    int left, top, right, bottom;
    if (!take_whole(values[0], 0, row.width, &left, message) ||
        !take_whole(values[1], 0, row.height, &top, message) ||
        !take_whole(values[2], left, row.width, &right, message) ||
        !take_whole(values[3], top, row.height, &bottom, message))
        return false;
    for (int y = top; y < bottom; y++)
        memset(row.pixels + ((size_t)y * (size_t)row.width + (size_t)left) * AUGD_CHANNELS, GREY,
               (size_t)(right - left) * AUGD_CHANNELS);
    return true;
}

static bool run_step(AugdRow row, const AugdProgram *program, int step, const AugdScratch *scratch,
                     const int16_t *normals, char message[AUGD_MESSAGE_BYTES]) {
    const double *values = program->values + (size_t)step * AUGD_VALUES;
    int quality;
    switch ((Kind)program->kinds[step]) {
    case MATRIX: return run_matrix(row, program, values, message);
    case EQUALIZE: augd_equalize(row); return true;
    case AUTOCONTRAST: augd_stretch_contrast(row); return true;
    case SHARPNESS: return run_sharpness(row, values[0], scratch, message);
    case BLUR: return run_blur(row, values, scratch, message);
    case NOISE: return run_noise(row, values, normals, message);
    case JPEG:
        return take_whole(values[0], 1, 100, &quality, message) &&
               augd_recompress(row, quality, scratch, message);
    case BOX: return run_box(row, values, message);
    default:
        snprintf(message, AUGD_MESSAGE_BYTES, "expected a kind of step, got %d", program->kinds[step]);
        return false;
    }
}

int augd_run_program(AugdRow row, const AugdProgram *program, int first, const AugdScratch *scratch,
                     const int16_t *normals, char message[AUGD_MESSAGE_BYTES]) {
    int step = first;
    message[0] = '\0';
    while (step < program->num_steps && program->kinds[step] != NONE) {
        if (is_table(program->kinds[step])) {
            step = run_tables(row, program, step, message);
            if (message[0]) return step;
        } else if (run_step(row, program, step, scratch, normals, message)) {
            step++;
        } else {
            return step;
        }
    }
    return program->num_steps;
}
